"use strict";
const LARGE = 128; // the side from which an image is shown pixel by pixel
let network, own, job = null; // own: the guidance that the slider begins with, in its words

function busy(is) {
  $("work").hidden = !is;
  $("generate").disabled = is;
}

function query() {
  const found = new URLSearchParams({ count: $("count").value, seed: $("seed").value });
  if (network.classes.length) found.set("classes", $("class").value);
  // As long as it is not moved, each stage has its own
  if (network.guidance !== null && $("guidance").value !== own) found.set("guidance", $("guidance").value);
  if (Number($("augment").value)) found.set("augment", $("augment").value);
  return found;
}

async function generate() {
  const asked = query();
  job = null;
  busy(true);
  say("Asking …");
  $("images").replaceChildren();
  $("progress").removeAttribute("value");
  try {
    job = await ask(`generations?${asked}`, { method: "POST" });
    while (job.state === "waiting" || job.state === "running") {
      tell(job);
      show(job);
      await rest();
      job = await ask(`generations/${job.id}`);
    }
    show(job);
    if (job.state === "failed") throw new Error(job.error);
    say(job.state === "done" ? about(job, asked) : `Cancelled; ${images(job.images.length)} made.`);
  } catch (error) {
    say(error.message, true);
  } finally {
    busy(false);
  }
}

function images(count) { return `${count} ${count === 1 ? "image" : "images"}`; }

function about(job, asked) {
  const titles = { guidance: "guidance", augment: "augmentation" };
  const more = Object.keys(titles).filter(name => asked.has(name)).map(name => `, ${titles[name]} ${asked.get(name)}`);
  return `${images(job.count)} of ${network.size} × ${network.size}, seed ${asked.get("seed")}${more.join("")}.`;
}

function tell(job) {
  if (job.state === "waiting") {
    say(`Waiting; ${job.ahead} ${job.ahead === 1 ? "request comes" : "requests come"} first.`);
    return;
  }
  if (job.done) $("progress").value = job.done / job.total;
  say(job.images.length ? `${job.images.length} of ${images(job.count)} …` : "Making images …");
}

// The images that have come since it was last called
function show(job) {
  const side = Math.max(1, Math.floor(LARGE / network.size)) * network.size;
  for (let number = $("images").children.length; number < job.images.length; number++) {
    const made = job.images[number], title = made.class || "Image";
    const item = document.createElement("li"), link = document.createElement("a"), image = document.createElement("img");
    Object.assign(image, { src: `generations/${job.id}/${number}.png`, alt: `${title}, ${number + 1} of ${job.count}`, width: side, height: side });
    Object.assign(link, { href: image.src, download: made.file, title: `Save ${made.file}` });
    link.append(image);
    item.append(link, made.class);
    $("images").append(item);
  }
}

function slider(name) {
  const shown = () => { $(`${name}-shown`).textContent = $(name).value; };
  $(name).addEventListener("input", shown);
  shown();
}

async function start() {
  network = await ask("network");
  $("network").textContent = `${network.stages.join(", then ")}: images of ${network.size} × ${network.size} from noise`;
  $("class-field").hidden = !network.classes.length;
  $("class").add(new Option("any", "all"));
  network.classes.forEach((name, number) => $("class").add(new Option(name, number)));
  $("guidance-field").hidden = network.guidance === null;
  $("guidance").max = Math.max(4, network.guidance);
  $("guidance").value = network.guidance ?? 1;
  own = $("guidance").value;
  $("augment-field").hidden = !network.augment;
  $("augment").max = network.augment;
  $("count").max = network.most;
  $("images").classList.toggle("small", network.size <= LARGE);
  slider("guidance");
  slider("augment");
  $("another").addEventListener("click", anotherSeed);
  $("form").addEventListener("submit", event => { event.preventDefault(); if ($("work").hidden) generate(); });
  $("cancel").addEventListener("click", () => job && ask(`generations/${job.id}`, { method: "DELETE" }).catch(() => {}));
  $("generate").disabled = false;
}

start().catch(error => say(error.message, true));
