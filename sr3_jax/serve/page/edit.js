"use strict";
const SIDES = ["above", "right", "below", "left"];
const PAINT = "#e6007e"; // of the mask, as it is shown
const LONGEST = 1600; // pixels: the side of the canvas that shows the mask, at the most
const THIN = 2; // pixels: a thinner stroke could lie between pixels and mark none
let image = null; // what the server has told of the upload, and its address in this browser
let stroke = null; // the one being painted
const marks = []; // all that was done to the mask: {stroke…}, {layer: a canvas} or {clear: true}

// -- the image

async function upload(chosen) {
  const query = new URLSearchParams({ name: chosen.name });
  return ask(`images?${query}`, { method: "POST", body: chosen });
}

async function taken() {
  const chosen = file;
  forget();
  say("Sending …");
  try {
    const found = await upload(chosen), answer = await fetch(`images/${found.id}/input.png`);
    if (!answer.ok) throw new Error((await answer.json()).error);
    const address = URL.createObjectURL(await answer.blob());
    if (file !== chosen) return; // another one was chosen meanwhile
    image = { ...found, address, file: chosen };
    say(`${image.width} × ${image.height}${network.fills ? ": paint over what is to be filled, or add margins" : ""}.`);
    if (network.fills) await beginPainting();
  } catch (error) {
    if (file === chosen) say(error.message, true);
  }
  settle();
}

function forget() {
  if (image) {
    ask(`images/${image.id}`, { method: "DELETE" }).catch(() => {});
    URL.revokeObjectURL(image.address);
  }
  image = null;
  $("editor").hidden = true;
  settle();
}

function ready() { return Boolean(image); }

// -- where it is to be filled

async function beginPainting() {
  const { width, height } = image, scale = Math.min(1, LONGEST / Math.max(width, height));
  marks.length = 0;
  Object.assign($("mask"), { width: Math.ceil(width * scale), height: Math.ceil(height * scale) });
  const most = Math.max(THIN, Math.ceil(Math.max(width, height) / 3)), step = Math.max(1, Math.round(most / 200));
  Object.assign($("size"), { min: THIN, max: most, step });
  $("size").value = most / 5;
  for (const side of SIDES) $(side).value = 0;
  $("editor").hidden = false;
  await load($("shown"), image.address);
  layOut();
  sized();
  redraw();
}

function margin() { return SIDES.map(side => Math.max(0, Math.round(Number($(side).value)) || 0)); }

// Where an image lies within its margins
function place(element, { width, height }, [above, right, below, left]) {
  const across = width + left + right, down = height + above + below;
  const percent = (part, whole) => `${100 * part / whole}%`;
  Object.assign(element.style, { left: percent(left, across), top: percent(above, down), width: percent(width, across), height: percent(height, down) });
  return [across, down];
}

function layOut() {
  const [across, down] = place($("sheet"), image, margin());
  $("stage").style.aspectRatio = `${across} / ${down}`;
  // Not so high that a finger that paints finds no place to scroll the page
  $("stage").style.width = `min(100%, ${across * enlarged(across, down)}px, ${70 * across / down}vh)`;
}

function sized() {
  $("size-shown").textContent = `${$("size").value} px`;
  $("ring").style.width = `${100 * $("size").value / image.width}%`;
}

function where(event) {
  const box = $("mask").getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * image.width, (event.clientY - box.top) / box.height * image.height];
}

// The marks since the mask was last cleared
function painted() { return marks.slice(marks.findLastIndex(mark => mark.clear) + 1); }

// Draws a mark, of a stroke from its point number `from` on; one unit is a pixel of the image
function draw(context, mark, from = 0) {
  context.globalCompositeOperation = mark.erase ? "destination-out" : "source-over";
  if (mark.layer) {
    context.drawImage(mark.layer, 0, 0);
    return;
  }
  Object.assign(context, { fillStyle: PAINT, strokeStyle: PAINT, lineWidth: mark.size, lineCap: "round", lineJoin: "round" });
  context.beginPath();
  if (from === 0) {
    context.arc(...mark.points[0], mark.size / 2, 0, 2 * Math.PI);
    context.fill();
    context.beginPath();
  }
  context.moveTo(...mark.points[Math.max(0, from - 1)]);
  for (const point of mark.points.slice(Math.max(1, from))) context.lineTo(...point);
  context.stroke();
}

function shownMask() {
  const context = $("mask").getContext("2d");
  context.setTransform($("mask").width / image.width, 0, 0, $("mask").height / image.height, 0, 0);
  return context;
}

function redraw() {
  const context = shownMask();
  context.clearRect(0, 0, image.width, image.height);
  for (const mark of painted()) draw(context, mark);
  $("undo").disabled = !marks.length;
  $("clear").disabled = !painted().length;
}

function mark(one) {
  marks.push(one);
  redraw();
}

function undo() {
  if (stroke) return;
  marks.pop();
  redraw();
}

function blank(width, height) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  if (!context) throw new Error("This browser cannot paint on an image of so many pixels.");
  return context;
}

// The mask as a PNG file of the image's size, white on black; null if nothing was painted
async function mask() {
  if (!painted().length) return null;
  const { width, height } = image, context = blank(width, height);
  for (const mark of painted()) draw(context, mark);
  for (const [operation, colour] of [["source-in", "#fff"], ["destination-over", "#000"]]) {
    Object.assign(context, { globalCompositeOperation: operation, fillStyle: colour });
    context.fillRect(0, 0, width, height);
  }
  const found = await new Promise(done => context.canvas.toBlob(done, "image/png"));
  if (!found) throw new Error("This browser cannot make a mask of so many pixels.");
  return found;
}

// What is white in an image file becomes painted
async function takeMask(chosen) {
  if (!chosen) return;
  const given = image;
  try {
    const bitmap = await createImageBitmap(chosen).catch(() => { throw new Error(`${chosen.name} is no image that this browser can read.`); });
    if (image !== given) return; // another one was chosen meanwhile
    const { width, height } = bitmap;
    if (width !== image.width || height !== image.height)
      throw new Error(`The mask is ${width} × ${height}, and the image ${image.width} × ${image.height}: they must be of one size.`);
    const context = blank(width, height);
    context.drawImage(bitmap, 0, 0);
    const values = context.getImageData(0, 0, width, height), { data } = values;
    const colour = [1, 3, 5].map(place => parseInt(PAINT.slice(place, place + 2), 16));
    for (let at = 0; at < data.length; at += 4) {
      const white = data[at] + data[at + 1] + data[at + 2] > 3 * 127.5 && data[at + 3] > 127.5;
      data.set([...colour, white ? 255 : 0], at);
    }
    context.putImageData(values, 0, 0);
    mark({ layer: context.canvas });
    say("");
  } catch (error) {
    say(error.message, true);
  }
  $("mask-file").value = ""; // so that the same file can be chosen again
}

function listenToPointers() {
  const canvas = $("mask"), ring = $("ring");
  const follow = event => {
    const [x, y] = where(event);
    Object.assign(ring.style, { left: `${100 * x / image.width}%`, top: `${100 * y / image.height}%` });
    ring.hidden = event.pointerType === "touch";
  };
  canvas.addEventListener("pointerdown", event => {
    if (!event.isPrimary || event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    stroke = { erase: $("eraser").checked, size: Number($("size").value), points: [where(event)] };
    draw(shownMask(), stroke);
  });
  canvas.addEventListener("pointermove", event => {
    if (!event.isPrimary) return;
    follow(event);
    if (!stroke) return;
    const from = stroke.points.length, all = event.getCoalescedEvents?.() ?? [];
    stroke.points.push(...(all.length ? all : [event]).map(where));
    draw(shownMask(), stroke, from);
  });
  const end = kept => event => {
    if (!event.isPrimary || !stroke) return;
    if (kept) marks.push(stroke);
    stroke = null;
    redraw();
  };
  canvas.addEventListener("pointerup", end(true));
  canvas.addEventListener("pointercancel", end(false)); // e.g. a second finger came, to zoom
  canvas.addEventListener("pointerleave", () => { ring.hidden = true; });
}

function listenToTools() {
  for (const side of SIDES) $(side).addEventListener("input", layOut);
  $("size").addEventListener("input", sized);
  $("undo").addEventListener("click", undo);
  $("clear").addEventListener("click", () => mark({ clear: true }));
  $("mask-file").addEventListener("change", () => takeMask($("mask-file").files[0]));
  addEventListener("keydown", event => {
    const wanted = (event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z";
    if (!wanted || !image || event.target.type === "number") return; // there it takes back what was typed
    event.preventDefault();
    undo();
  });
}

// -- what the network is told

// A slider by whole steps of its own unit; its first place is "unknown" if the network may not know
function offerFlaw(signal) {
  const unit = signal.high > 10 ? 1 : 0.1, label = document.createElement("label");
  const title = document.createElement("span"), shown = document.createElement("output"), input = document.createElement("input");
  const least = signal.optional ? -1 : 0;
  Object.assign(input, { id: signal.name, type: "range", min: least, max: Math.floor(signal.high / unit + 1e-6), step: 1, value: least });
  shown.id = `${signal.name}-shown`;
  label.htmlFor = signal.name;
  const tell = () => {
    const place = Number(input.value);
    input.told = place < 0 ? null : Number((place * unit).toFixed(1));
    shown.textContent = { [-1]: "unknown", 0: "none" }[place] ?? input.told;
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  tell();
  input.addEventListener("input", tell);
  title.append(`${signal.title}: `, shown);
  label.append(title, input);
  $("flaws").append(label);
}

// -- making it

// Asks for an edit; sends the image anew if the server has forgotten it
async function order(given, query, body) {
  try {
    return await ask(`edits?${query}`, { method: "POST", body });
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  Object.assign(given, await upload(given.file));
  query.set("image", given.id);
  return ask(`edits?${query}`, { method: "POST", body });
}

async function edit() {
  const given = image, around = margin();
  const query = new URLSearchParams({ image: given.id, steps: network.steps[$("steps").value], seed: $("seed").value || "0" });
  for (const { name } of network.signals) if ($(name).told !== null) query.set(name, $(name).told);
  if (network.fills && around.some(Boolean)) query.set("margin", around);
  if (network.fills && !query.has("margin") && !painted().length) {
    say("Nothing is to be filled yet: paint over a part of the image, or add a margin.", true);
    return;
  }
  busy(true);
  say("Sending …");
  $("progress").removeAttribute("value");
  try {
    job = await order(given, query, await mask());
    const done = await ended("edits");
    if (!done) say("Cancelled.");
    else {
      place($("before"), given, around);
      await show(done, `edits/${job.id}/result.png`, given.address, network.task, query);
      $("result").scrollIntoView({ block: "nearest" }); // the image that is painted on fills the screen
    }
  } catch (error) {
    say(error.message, true);
  } finally {
    busy(false);
  }
}

async function start() {
  network = await ask("network");
  $("network").textContent = `${network.name}: ${network.about}`;
  if (network.task === "inpaint") $("editor").append($("margins")); // what is wanted first comes first
  $("flaws").hidden = !network.signals.length;
  for (const signal of network.signals) offerFlaw(signal);
  listenToPointers();
  listenToTools();
  controls("edits", edit);
  $("sample").addEventListener("click", () => { if (settle()) { anotherSeed(); edit(); } });
  choose(waiting);
}

takeFiles(); // even before the server has told of its network
start().catch(error => say(error.message, true));
