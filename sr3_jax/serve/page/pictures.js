"use strict";
// What the pages share that make a picture of an image: taking the file, waiting for the result,
// before and after. A page has its own `taken()`, called for a new `file`, and `ready()`, which
// says whether there is something to make.
let network, waiting = null, file = null, job = null;

function choose(chosen) {
  if (!chosen) return;
  if (!network) {
    waiting = chosen;
    say(`${chosen.name} is taken as soon as the server has told of its network …`);
    return;
  }
  if (chosen.size > network.megabytes * 2 ** 20) {
    say(`${chosen.name} is larger than ${network.megabytes} MB, the most that this server takes.`, true);
    return;
  }
  file = chosen;
  $("chosen").textContent = `${file.name} (${(file.size / 1024).toFixed(0)} kB)`;
  say("");
  taken();
}

function takeFiles() {
  $("file").addEventListener("change", () => choose($("file").files[0]));
  for (const kind of ["dragenter", "dragover"])
    addEventListener(kind, event => { event.preventDefault(); $("drop").classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) addEventListener(kind, () => $("drop").classList.remove("over"));
  addEventListener("drop", event => { event.preventDefault(); choose(event.dataTransfer.files[0]); });
  addEventListener("paste", event => choose(event.clipboardData.files[0]));
  choose($("file").files[0]); // a browser may keep it when the page is loaded again
}

function busy(is) {
  $("work").hidden = !is;
  settle();
}

// Whether something can be made now
function settle() {
  const able = ready() && $("work").hidden;
  $("form").querySelector("[type=submit]").disabled = !able;
  return able;
}

// Waits for a job of `kind` to end; null if it was cancelled
async function ended(kind) {
  while (job.state === "waiting" || job.state === "running") {
    tell(job);
    await rest();
    job = await ask(`${kind}/${job.id}`);
  }
  if (job.state === "failed") throw new Error(job.error);
  return job.state === "done" ? job : null;
}

function tell(job) {
  if (job.state === "waiting") {
    say(`Waiting; ${job.ahead} ${job.ahead === 1 ? "image comes" : "images come"} first.`);
    return;
  }
  if (job.done) $("progress").value = job.done / job.total;
  say(`Making ${job.width} × ${job.height} …`);
}

function load(image, source) {
  return new Promise((done, failed) => {
    image.onload = done;
    image.onerror = () => failed(new Error("The result could not be shown; download it instead."));
    image.src = source;
  });
}

// Shows a result beside what was given, and offers it for download
async function show(job, result, before, title, query) {
  $("download").href = result;
  $("download").download = job.name.replace(/\.[^.]*$/, "") + `-${title}.png`;
  $("result").hidden = false;
  await Promise.all([load($("after"), result), load($("before"), before)]);
  fit();
  const steps = query.get("steps"), notes = job.notes.length ? ` Note: ${job.notes.join("; ")}.` : "";
  say(`${job.width} × ${job.height}, ${steps} ${steps === "1" ? "step" : "steps"}, seed ${query.get("seed")}.${notes}`);
}

// Small pictures are shown larger, by whole factors, or they could not be seen.
function enlarged(width, height) { return Math.max(1, Math.min(Math.floor(512 / width), Math.floor(512 / height))); }

function fit() {
  const { naturalWidth: width, naturalHeight: height } = $("after");
  const compare = $("compare"), full = $("full").checked;
  compare.classList.toggle("full", full);
  compare.classList.toggle("blocks", Boolean($("blocks")?.checked));
  compare.style.aspectRatio = `${width} / ${height}`;
  compare.style.maxWidth = full ? "none" : `${Math.max(width * enlarged(width, height), 1)}px`;
  compare.style.width = full ? `${width / devicePixelRatio}px` : "";
  slide();
}

function slide() {
  const share = $("slider").value;
  // With the edge around it, or a row of the result would show where rounding leaves one
  $("before-clip").style.clipPath = `inset(-1px ${100 - share}% -1px -1px)`;
  $("line").style.left = `calc(${share}% - 1px)`;
}

// The controls of all such pages; `make` makes a picture, of the `kind` of jobs
function controls(kind, make) {
  $("steps").max = network.steps.length - 1;
  $("steps").value = network.steps.indexOf(network.default_steps);
  const shown = () => { $("steps-shown").textContent = network.steps[$("steps").value]; };
  shown();
  $("steps").addEventListener("input", shown);
  $("another").addEventListener("click", anotherSeed);
  $("form").addEventListener("submit", event => { event.preventDefault(); if (settle()) make(); });
  $("cancel").addEventListener("click", () => job && ask(`${kind}/${job.id}`, { method: "DELETE" }).catch(() => {}));
  $("slider").addEventListener("input", slide);
  for (const box of ["full", "blocks"]) $(box)?.addEventListener("change", fit);
}
