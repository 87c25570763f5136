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
// A canvas with an image: numbers to colours by the window, then to the screen by the view that all canvases share.

const GREY = Uint32Array.from({ length: 256 }, (_, i) => 0xff000000 | (i << 16) | (i << 8) | i);
const INFERNO = (() => {
  const bytes = atob(report.color_map);
  return Uint32Array.from({ length: 256 }, (_, i) => 0xff000000 | (bytes.charCodeAt(3 * i + 2) << 16) | (bytes.charCodeAt(3 * i + 1) << 8) | bytes.charCodeAt(3 * i));
})();
const TRUE_COLOR = "#ff4040";
const PREDICTED_COLOR = "#ffe03a";

class ImageCanvas {
  constructor(label, role) {
    this.canvas = element("canvas", { role: "img", "aria-label": label, "data-role": role });
    this.raw = document.createElement("canvas");
    this.image = null;
    this.outlines = [];
  }

  // reference is given for an error map.
  setImage(image, { reference = null, outlines = [], label = null } = {}) {
    Object.assign(this, { image, reference, outlines });
    if (label !== null) this.canvas.setAttribute("aria-label", label);
    if (image === null) return;
    this.raw.width = image.cols;
    this.raw.height = image.rows;
    this.canvas.style.aspectRatio = `${image.cols} / ${image.rows}`;
  }

  // Colours of all pixels. Grey: from level - width / 2 to level + width / 2, in parts of top. Error: black to the
  // last colour from 0 to white / gain.
  paint(view, { top, white }) {
    if (this.image === null) return;
    const { values } = this.image;
    const other = this.reference && this.reference.values;
    const context = this.raw.getContext("2d");
    const pixels = context.createImageData(this.raw.width, this.raw.height);
    const words = new Uint32Array(pixels.data.buffer);
    const low = (view.level - view.width / 2) * top;
    const scale = other ? (255 * view.gain) / white : 255 / (view.width * top);
    const colors = other ? INFERNO : GREY;
    for (let i = 0; i < words.length; i++) {
      const level = ((other ? Math.abs(values[i] - other[i]) : values[i] - low) * scale + 0.5) | 0;
      words[i] = colors[level < 0 ? 0 : level > 255 ? 255 : level];
    }
    context.putImageData(pixels, 0, 0);
  }

  draw(view) {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.canvas.clientWidth * ratio);
    const height = Math.round(this.canvas.clientHeight * ratio);
    if (!width || !height) return;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "black";
    context.fillRect(0, 0, width, height);
    if (this.image === null) return;
    const { rows, cols } = this.image;
    const scale = (width / cols) * view.zoom;
    context.setTransform(scale, 0, 0, scale, width / 2 - view.x * cols * scale, height / 2 - view.y * rows * scale);
    context.imageSmoothingEnabled = view.smooth;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.raw, 0, 0);
    // the truth is the wider of the two, so that where they agree it has a core of the other's colour
    if (view.contours) for (const { path, color, width: line } of this.outlines) this.stroke(context, path, color, (line * ratio) / scale);
    if (view.cursor) this.drawCursor(context, view.cursor, ratio / scale);
  }

  stroke(context, path, color, width) {
    Object.assign(context, { strokeStyle: color, lineWidth: width, lineCap: "square" });
    context.stroke(path);
  }

  drawCursor(context, { row, col }, pixel) {
    const path = new Path2D();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      path.moveTo(col + 0.5 + 4 * dx * pixel, row + 0.5 + 4 * dy * pixel);
      path.lineTo(col + 0.5 + 11 * dx * pixel, row + 0.5 + 11 * dy * pixel);
    }
    this.stroke(context, path, "rgba(0, 0, 0, 0.6)", 3 * pixel);
    this.stroke(context, path, "#4dd0ff", 1.2 * pixel);
  }

  // The pixel below a point of the window, or null.
  pixelAt(event, view) {
    if (this.image === null) return null;
    const frame = this.canvas.getBoundingClientRect();
    const across = view.x + ((event.clientX - frame.left) / frame.width - 0.5) / view.zoom;
    const down = view.y + ((event.clientY - frame.top) / frame.height - 0.5) / view.zoom;
    const [row, col] = [Math.floor(down * this.image.rows), Math.floor(across * this.image.cols)];
    const inside = row >= 0 && col >= 0 && row < this.image.rows && col < this.image.cols;
    return inside ? { row, col } : null;
  }
}

function outlinesOf(one, truth) {
  return [
    ...(truth ? [{ path: truth, color: TRUE_COLOR, width: 2.6 }] : []),
    ...(one.outline ? [{ path: one.outline, color: PREDICTED_COLOR, width: 1.2 }] : []),
  ];
}
// Zoom, window and pointer, one for all canvases, and the gestures that change them.

const MAX_ZOOM = 32;
const view = { zoom: 1, x: 0.5, y: 0.5, level: 0.5, width: 1, gain: 5, errors: true, contours: true, smooth: true, cursor: null, ownWindow: false };
const limit = (value, low, high) => Math.min(Math.max(value, low), high);

// What shows the view sets these: all colours anew, or only the place and size.
const viewer = { repaint() {}, redraw() {}, syncControls() {} };

function setZoom(zoom, x = view.x, y = view.y) {
  view.zoom = limit(zoom, 1, MAX_ZOOM);
  const half = 0.5 / view.zoom;
  view.x = limit(x, half, 1 - half);
  view.y = limit(y, half, 1 - half);
  viewer.redraw();
}

// Zoom, and keep what is at a place of the canvas (from its middle, in parts of its size) where it is.
function zoomAround(factor, across, down) {
  const zoom = limit(view.zoom * factor, 1, MAX_ZOOM);
  setZoom(zoom, view.x + across / view.zoom - across / zoom, view.y + down / view.zoom - down / zoom);
}

function resetZoom() {
  setZoom(1, 0.5, 0.5);
}

function setWindow(level, width) {
  Object.assign(view, { level: limit(level, 0, 1.5), width: limit(width, 0.01, 2), ownWindow: true });
  viewer.syncControls();
  viewer.repaint();
}

function placeIn(canvas, event) {
  const frame = canvas.getBoundingClientRect();
  return [(event.clientX - frame.left) / frame.width - 0.5, (event.clientY - frame.top) / frame.height - 0.5];
}

// The wheel zooms once the pointer has moved over an image: a page that is being scrolled goes on scrolling when an
// image comes below a resting pointer.
let wheelZooms = false;
window.addEventListener("scroll", () => { wheelZooms = false; }, { passive: true });

function addGestures(shown) {
  const { canvas } = shown;
  const pointers = new Map();
  let windowing = false;
  canvas.addEventListener("wheel", (event) => {
    if (!wheelZooms && !event.ctrlKey) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 30 : 1;
    zoomAround(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0022)), ...placeIn(canvas, event));
  }, { passive: false });
  canvas.addEventListener("dblclick", resetZoom);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button === 1) return;
    windowing = event.button === 2 || event.shiftKey;
    pointers.set(event.pointerId, event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.movementX || event.movementY) wheelZooms = true;
    const before = pointers.get(event.pointerId);
    if (before) {
      drag(canvas, pointers, before, event, windowing);
      pointers.set(event.pointerId, event);
    }
    if (event.pointerType !== "touch") view.cursor = shown.pixelAt(event, view);
    viewer.redraw();
  });
  for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => { view.cursor = null; viewer.redraw(); });
}

function drag(canvas, pointers, before, event, windowing) {
  const { width, height } = canvas.getBoundingClientRect();
  const [dx, dy] = [(event.clientX - before.clientX) / width, (event.clientY - before.clientY) / height];
  if (pointers.size === 2) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
    const [x, y] = placeIn(canvas, event).map((place, axis) => (place + placeIn(canvas, other)[axis]) / 2);
    zoomAround(apart(event) / apart(before), x, y);
    setZoom(view.zoom, view.x - dx / 2 / view.zoom, view.y - dy / 2 / view.zoom);
  } else if (windowing) {
    setWindow(view.level + dy * 0.8, view.width + dx * 1.5); // up is brighter, right is softer
  } else {
    setZoom(view.zoom, view.x - dx / view.zoom, view.y - dy / view.zoom);
  }
}

// Keys while the viewer has the focus. Returns whether the key was one of them.
function viewKey(key) {
  const step = 0.1 / view.zoom;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (key in moves && view.zoom > 1) setZoom(view.zoom, view.x + moves[key][0], view.y + moves[key][1]);
  else if (key === "+" || key === "=") zoomAround(1.25, 0, 0);
  else if (key === "-") zoomAround(0.8, 0, 0);
  else if (key === "0") resetZoom();
  else if (key === "[") setWindow(view.level, view.width * 0.9);
  else if (key === "]") setWindow(view.level, view.width / 0.9);
  else if (key === "b") setWindow(view.level - 0.02, view.width);
  else if (key === "d") setWindow(view.level + 0.02, view.width);
  else return false;
  return true;
}
