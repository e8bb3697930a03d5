"use strict";
const $ = id => document.getElementById(id);
const base = location.pathname.replace(/\/$/, "");
let state, since = 0, asking = false;

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
  state = await ask("/state");
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
  await Promise.all(sides.map(side => load($(side), `${base}/${state.number}/${side}`)));
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
  const body = JSON.stringify({ left, milliseconds: performance.now() - since });
  const answer = await ask(`/${state.number}`, { method: "POST", body });
  if (answer && "right" in answer) {
    $("feedback").textContent = answer.right ? "Right." : "No, it was the other one.";
    $("next").hidden = false;
    $("next").focus();
  } else {
    await next();
  }
}

const guarded = action => () => action().catch(problem);
$("agree").addEventListener("click", guarded(async () => { await ask("/agree", { method: "POST" }); await next(); }));
$("choose-left").addEventListener("click", guarded(() => choose(true)));
$("choose-right").addEventListener("click", guarded(() => choose(false)));
$("next").addEventListener("click", guarded(next));
addEventListener("keydown", event => {
  if (event.repeat || !asking) return;
  if (event.key === "ArrowLeft") choose(true).catch(problem);
  if (event.key === "ArrowRight") choose(false).catch(problem);
});
next().catch(problem);
