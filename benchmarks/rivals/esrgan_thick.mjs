// The network of @upscalerjs/esrgan-thick. esrgan_thick.py starts this: node esrgan_thick.mjs NODE_MODULES SCALE
//
// For each image: height and width (uint32) and RGB in [0, 1] (float32, row by row) come on standard input, and the enlarged RGB,
// float32, goes to standard output. Little-endian. Ends with the input.

import { readFileSync, readSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

const [packages, scale] = process.argv.slice(2)
console.log = console.info = console.error // standard output is for pixels
const require = createRequire(join(packages, 'any.js'))
const tf = require('@tensorflow/tfjs')
const wasm = require('@tensorflow/tfjs-backend-wasm')

// The package's own description of the network; `setup` registers its layers.
const definition = require(`@upscalerjs/esrgan-thick/${scale}x`)

async function loadModel() {
  const file = join(packages, '@upscalerjs/esrgan-thick', definition._internals.path)
  const { modelTopology, weightsManifest } = JSON.parse(readFileSync(file, 'utf8'))
  const shards = weightsManifest.flatMap((group) => group.paths).map((path) => readFileSync(join(dirname(file), path)))
  const weightData = new Uint8Array(Buffer.concat(shards)).buffer
  const weightSpecs = weightsManifest.flatMap((group) => group.weights)
  definition.setup(tf)
  return tf.loadLayersModel({ load: async () => ({ modelTopology, weightSpecs, weightData }) })
}

/** `count` bytes of standard input; null at its end. */
function take(count) {
  const bytes = new Uint8Array(count)
  for (let done = 0; done < count; ) {
    const got = readSync(0, bytes, done, count - done)
    if (got === 0) return null
    done += got
  }
  return bytes
}

function give(bytes) {
  for (let done = 0; done < bytes.length; ) done += writeSync(1, bytes, done, bytes.length - done)
}

wasm.setWasmPaths(join(packages, '@tensorflow/tfjs-backend-wasm/dist/'))
await tf.setBackend('wasm')
const model = await loadModel()
for (let header; (header = take(8)); ) {
  const [height, width] = new Uint32Array(header.buffer)
  const pixels = new Float32Array(take(12 * height * width).buffer)
  const large = tf.tidy(() => model.predict(tf.tensor4d(pixels, [1, height, width, 3])))
  const answer = await large.data()
  large.dispose()
  give(new Uint8Array(answer.buffer, answer.byteOffset, answer.byteLength))
}
