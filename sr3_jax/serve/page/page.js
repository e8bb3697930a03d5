"use strict";
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
  $("enlarge").disabled = !$("work").hidden;
  say("");
}

function busy(is) {
  $("work").hidden = !is;
  $("enlarge").disabled = is || !file;
}

async function enlarge() {
  const query = new URLSearchParams({ name: file.name, seed: $("seed").value || "0", match_input: $("match").checked });
  query.set("steps", network.steps[$("steps").value]);
  for (const { name, optional } of network.signals)
    if ($(name).value !== "" && (optional || Number($(name).value))) query.set(name, $(name).value);
  if ($("sampler").value) query.set("sampler", $("sampler").value);
  busy(true);
  say("Sending …");
  $("progress").removeAttribute("value");
  try {
    job = await ask(`images?${query}`, { method: "POST", body: file });
    while (job.state === "waiting" || job.state === "running") {
      tell(job);
      await rest();
      job = await ask(`images/${job.id}`);
    }
    if (job.state === "failed") throw new Error(job.error);
    if (job.state === "done") await show(job, query.get("steps"), query.get("seed"));
    else say("Cancelled.");
  } catch (error) {
    say(error.message, true);
  } finally {
    busy(false);
  }
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

async function show(job, steps, seed) {
  $("download").href = `images/${job.id}/result.png`;
  $("download").download = job.name.replace(/\.[^.]*$/, "") + `-${job.scale}x.png`;
  $("result").hidden = false;
  await Promise.all([load($("after"), `images/${job.id}/result.png`), load($("before"), `images/${job.id}/input.png`)]);
  fit();
  const notes = job.notes.length ? ` Note: ${job.notes.join("; ")}.` : "";
  say(`${job.width} × ${job.height}, ${steps} ${steps === "1" ? "step" : "steps"}, seed ${seed}.${notes}`);
}

function fit() {
  const { naturalWidth: width, naturalHeight: height } = $("after");
  const compare = $("compare"), full = $("full").checked;
  compare.classList.toggle("full", full);
  compare.classList.toggle("blocks", $("blocks").checked);
  compare.style.aspectRatio = `${width} / ${height}`;
  // Small results are shown larger, by whole factors, or they could not be seen.
  const factor = Math.max(1, Math.min(Math.floor(512 / width), Math.floor(512 / height)));
  compare.style.maxWidth = full ? "none" : `${Math.max(width * factor, 1)}px`;
  compare.style.width = full ? `${width / devicePixelRatio}px` : "";
  slide();
}

function slide() {
  const share = $("slider").value;
  $("before-clip").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  $("line").style.left = `calc(${share}% - 1px)`;
}

async function start() {
  network = await ask("network");
  const kind = network.channels === 1 ? "grey" : "colour";
  $("network").textContent = `${network.name}: ${network.scale}× larger, trained on ${kind} images of ${network.size} × ${network.size}`;
  $("steps").max = network.steps.length - 1;
  $("steps").value = network.steps.indexOf(network.default_steps);
  $("match").checked = network.match_input;
  $("sampler").add(new Option("the network's own", ""));
  for (const name of network.samplers) $("sampler").add(new Option(name, name));
  const shownSteps = () => { $("steps-shown").textContent = network.steps[$("steps").value]; };
  shownSteps();

  $("steps").addEventListener("input", shownSteps);
  const anySignal = () => network.signals.some(({ name }) => Number($(name).value));
  for (const signal of network.signals) {
    const label = document.createElement("label"), input = document.createElement("input");
    label.id = `${signal.name}-field`;
    Object.assign(input, { id: signal.name, type: signal.removed ? "number" : "range", min: 0, max: signal.high, step: signal.removed ? "any" : 1, value: signal.optional ? "" : 0, placeholder: "not known" });
    label.append(signal.label, input);
    if (!signal.removed) {
      const shown = document.createElement("output");
      shown.textContent = input.value;
      label.append(shown);
      input.addEventListener("input", () => { shown.textContent = input.value; });
    }
    $("match-field").before(label);
    // an image matched with a noisy one would be as noisy
    input.addEventListener("input", () => { $("match").checked = network.match_input && !anySignal(); });
  }
  $("another").addEventListener("click", anotherSeed);
  $("form").addEventListener("submit", event => { event.preventDefault(); if (file && $("work").hidden) enlarge(); });
  $("cancel").addEventListener("click", () => job && ask(`images/${job.id}`, { method: "DELETE" }).catch(() => {}));
  $("slider").addEventListener("input", slide);
  for (const box of ["full", "blocks"]) $(box).addEventListener("change", fit);
  choose(waiting);
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

takeFiles(); // even before the server has told of its network
start().catch(error => say(error.message, true));
