"use strict";
function taken() { settle(); }

function ready() { return Boolean(file); }

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
    const done = await ended("images");
    if (done) await show(done, `images/${job.id}/result.png`, `images/${job.id}/input.png`, `${job.scale}x`, query);
    else say("Cancelled.");
  } catch (error) {
    say(error.message, true);
  } finally {
    busy(false);
  }
}

async function start() {
  network = await ask("network");
  const kind = network.channels === 1 ? "grey" : "colour";
  $("network").textContent = `${network.name}: ${network.scale}× larger, trained on ${kind} images of ${network.size} × ${network.size}`;
  $("match").checked = network.match_input;
  $("sampler").add(new Option("the network's own", ""));
  for (const name of network.samplers) $("sampler").add(new Option(name, name));

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
  controls("images", enlarge);
  choose(waiting);
}

takeFiles(); // even before the server has told of its network
start().catch(error => say(error.message, true));
