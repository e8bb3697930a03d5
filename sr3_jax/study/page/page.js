"use strict";
const $ = id => document.getElementById(id);
const base = location.pathname.replace(/\/$/, "");
const trials = self.TRIALS;  // of an exported study, which has no server
const study = trials ? kept() : served();
let state, since = 0, asking = false;

// Both kinds of study: state() says where the subject is; answer() gives {right} in practice, null if another tab was faster.

function served() {
  return {
    state: () => ask("/state"),
    agree: () => ask("/agree", { method: "POST" }),
    source: (number, side) => `${base}/${number}/${side}`,
    shown: () => {},  // the server has sent it
    answer: (number, left, milliseconds) => ask(`/${number}`, { method: "POST", body: JSON.stringify({ left, milliseconds }) }),
  };
}

function kept() {
  const key = `study ${trials.token}`;
  const guard = action => {
    try {
      return action();
    } catch {
      throw new Error("This browser does not let a page keep anything. Please allow it, or take another browser.");
    }
  };
  const read = () => guard(() => JSON.parse(localStorage.getItem(key)) || { agreed: false, answers: [], shown: {} });
  const change = edit => {
    const all = read();
    edit(all);
    guard(() => localStorage.setItem(key, JSON.stringify(all)));
  };
  return {
    state: async () => {
      const { agreed, answers } = read(), number = answers.length;
      $("saving").hidden = !number;
      const stage = !agreed ? "consent" : number >= trials.total ? "done" : number < trials.training ? "training" : "main";
      return { ...trials, stage, number };
    },
    agree: async () => change(all => { all.agreed = true; }),
    source: (number, side) => `${number}-${side}.png`,
    shown: number => change(all => { all.shown[number] = (all.shown[number] || 0) + 1; }),
    answer: async (number, left, milliseconds) => {
      if (read().answers.length !== number) return null;
      const at = new Date().toISOString();
      change(all => all.answers.push({ left, milliseconds, shown: all.shown[number], at }));
      return number < trials.training ? { right: left === trials.practice[number] } : {};
    },
    save: () => {
      const content = JSON.stringify({ token: trials.token, answers: read().answers });
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
      link.download = `answers-${trials.token}.json`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    },
  };
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(base + path, options);
  } catch {
    throw new Error("The server does not answer. Your answers so far are saved; load this page again in a while.");
  }
  const data = answer.status === 204 ? {} : await answer.json();
  if (answer.status === 409) return null;  // another tab was faster
  if (!answer.ok) throw new Error(data.error);
  return data;
}

function problem(error) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
}

function show(section) {
  for (const name of ["consent", "trial", "done"]) $(name).hidden = name !== section;
}

async function next() {
  state = await study.state();
  for (const place of document.querySelectorAll(".question")) place.textContent = state.question;
  for (const place of document.querySelectorAll(".seconds"))
    place.textContent = `${state.seconds} ${state.seconds === 1 ? "second" : "seconds"}`;
  $("training-count").textContent = state.training;
  $("total").textContent = state.total;
  if (state.stage === "consent" || state.stage === "done") show(state.stage);
  else await trial();
}

function load(image, source) {
  return new Promise((done, failed) => {
    image.onload = () => image.decode().then(done, done);
    image.onerror = () => failed(new Error("An image could not be loaded; load this page again."));
    image.src = source;
  });
}

async function trial() {
  show("trial");
  const practice = state.stage === "training";
  $("progress").textContent = practice
    ? `Practice ${state.number + 1} of ${state.training}`
    : `${state.number - state.training + 1} of ${state.total - state.training}`;
  $("feedback").textContent = "";
  $("next").hidden = true;
  $("pair").classList.add("away");
  const sides = state.task === 1 ? ["left", "lr", "right"] : ["left", "right"];
  $("lr").hidden = state.task !== 1;
  $("pair").classList.toggle("three", state.task === 1);
  await Promise.all(sides.map(side => load($(side), study.source(state.number, side))));
  study.shown(state.number);
  $("pair").classList.remove("away");
  since = performance.now();
  await new Promise(done => setTimeout(done, 1000 * state.seconds));
  $("pair").classList.add("away");
  enable(true);
}

function enable(is) {
  asking = is;
  for (const side of ["left", "right"]) $(`choose-${side}`).disabled = !is;
}

async function choose(left) {
  if (!asking) return;
  enable(false);
  const answer = await study.answer(state.number, left, performance.now() - since);
  if (answer && "right" in answer) {
    $("feedback").textContent = answer.right ? "Right." : "No, it was the other one.";
    $("next").hidden = false;
    $("next").focus();
  } else {
    await next();
  }
}

const guarded = action => () => action().catch(problem);
$("agree").addEventListener("click", guarded(async () => { await study.agree(); await next(); }));
$("kept").hidden = Boolean(trials);
for (const place of document.querySelectorAll(".exported")) place.hidden = !trials;
$("save").addEventListener("click", guarded(async () => study.save()));
$("choose-left").addEventListener("click", guarded(() => choose(true)));
$("choose-right").addEventListener("click", guarded(() => choose(false)));
$("next").addEventListener("click", guarded(next));
addEventListener("keydown", event => {
  if (event.repeat || !asking) return;
  if (event.key === "ArrowLeft") choose(true).catch(problem);
  if (event.key === "ArrowRight") choose(false).catch(problem);
});
next().catch(problem);
