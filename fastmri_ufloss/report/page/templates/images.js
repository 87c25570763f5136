// The images of the cases, decoded when a case is first shown; see image_codec.py for their form. They are not PNGs
// read back from a canvas, because browsers that guard against fingerprints change what a canvas gives back.

async function inflate(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// {rows, cols, values: Float32Array}, or null.
async function decodeImage(image) {
  if (image === null) return null;
  const { rows, cols, low, step } = image;
  const bytes = await inflate(image.data);
  const size = rows * cols;
  const levels = new Int32Array(size);
  const values = new Float32Array(size);
  for (let row = 0, place = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++, place++) {
      const unsigned = bytes[place] * 256 + bytes[size + place];
      const difference = unsigned & 1 ? -(unsigned + 1) / 2 : unsigned / 2;
      const left = col ? levels[place - 1] : 0;
      const upper = row ? levels[place - cols] : 0;
      levels[place] = difference + ((left + upper) >> 1);
      values[place] = low + step * levels[place];
    }
  }
  return { rows, cols, values };
}

// The borders between classes, as lines along the edges of pixels.
async function decodeOutline(classes) {
  if (classes === null) return null;
  const { rows, cols } = classes;
  const numbers = await inflate(classes.data);
  const at = (row, col) => (row < 0 || col < 0 || row >= rows || col >= cols ? 0 : numbers[row * cols + col]);
  const path = new Path2D();
  for (let row = 0; row <= rows; row++) {
    for (let col = 0; col <= cols; col++) {
      if (at(row, col) !== at(row, col - 1)) { path.moveTo(col, row); path.lineTo(col, row + 1); }
      if (at(row, col) !== at(row - 1, col)) { path.moveTo(col, row); path.lineTo(col + 1, row); }
    }
  }
  return path;
}

const KEPT_CASES = 4;
const decodedCases = new Map();

function imagesOfCase(index) {
  const known = decodedCases.get(index) || decodeCase(index);
  decodedCases.delete(index);
  decodedCases.set(index, known);
  for (const oldest of decodedCases.keys()) {
    if (decodedCases.size > KEPT_CASES) decodedCases.delete(oldest);
  }
  return known;
}

async function decodeCase(index) {
  const stored = JSON.parse(document.getElementById(`images-${index}`).textContent);
  const all = (list, decode) => Promise.all(list.map(decode));
  const [references, methods, truth, referenceOutlines, methodOutlines] = await Promise.all([
    all(stored.references, decodeImage), all(stored.methods, decodeImage), decodeOutline(stored.truth),
    all(stored.reference_labels, decodeOutline), all(stored.method_labels, decodeOutline),
  ]);
  const named = (names, images, outlines) => names.map((name, i) => ({ name, image: images[i], outline: outlines[i] }));
  return {
    top: stored.top, white: stored.white, truth,
    references: named(report.references, references, referenceOutlines),
    methods: named(report.methods, methods, methodOutlines),
  };
}
