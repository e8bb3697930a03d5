"use strict";
// What all pages need: requests, and the line that says how things are
const $ = id => document.getElementById(id);

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer; is sr3 serve still running?");
  }
  if (answer.status === 204) return null;
  const data = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(data.error), { status: answer.status });
  return data;
}

function say(text, error = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", error);
}

function anotherSeed() { $("seed").value = Math.floor(Math.random() * 2 ** 31); }

function rest() { return new Promise(done => setTimeout(done, 250)); }
