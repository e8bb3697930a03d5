// What the npm package @vladmandic/face-api itself says of the random weights and images of make_face_goldens.py, as JSON.
// That program runs it and writes face_goldens.npz; both have the same generator, so neither weights nor images are stored.
//
//     npm install --prefix runs/face-api @vladmandic/face-api@1.7.15
//     python tests/metrics/peers/make_face_goldens.py runs/face-api     # from the repository's root; Node 20
import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, cases, out] = process.argv.slice(2);

// The bundle carries TensorFlow.js with its plain CPU backend, but Node's `util` is not in it: let it take this for a browser.
globalThis.window = { document: {} };
const bundle = resolve(folder, 'node_modules/@vladmandic/face-api/dist/face-api.esm.js');
const { FaceRecognitionNet, tf } = await import(pathToFileURL(bundle));
delete globalThis.window;
await tf.setBackend('cpu');

// The i-th of 2^32 numbers: MurmurHash3's last step, of i + 1.
function hash(i) {
  let h = i + 1;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

const weights = [];
function add(count, centre, width) {
  for (let i = 0; i < count; i++) weights.push(centre + width * (hash(weights.length) / 2 ** 32 - 0.5));
}
function convolution(inputs, outputs, kernel) { // filters (outputs, inputs, height, width), bias, scale, shift
  add(outputs * inputs * kernel * kernel, 0, Math.sqrt(12 / (inputs * kernel * kernel)));
  add(outputs, 0, 1);
  add(outputs, 1, 0.5);
  add(outputs, 0, 1);
}
convolution(3, 32, 7);
let inputs = 32;
for (const [width, blocks] of [[32, 3], [64, 4], [128, 3], [256, 4]]) {
  for (let i = 0; i < blocks; i++) {
    convolution(inputs, width, 3);
    convolution(width, width, 3);
    inputs = width;
  }
}
add(128 * inputs, 0, Math.sqrt(12 / inputs)); // (outputs, inputs)
const network = new FaceRecognitionNet();
await network.load(new Float32Array(weights));

const found = {};
for (const [height, width] of JSON.parse(cases)) {
  const pixels = Int32Array.from({ length: height * width * 3 }, (_, i) => hash(i + 1000 * height) >>> 24);
  found[`${height}x${width}`] = [...await network.computeFaceDescriptor(tf.tensor3d(pixels, [height, width, 3], 'int32'))];
}
writeFileSync(out, JSON.stringify(found));
