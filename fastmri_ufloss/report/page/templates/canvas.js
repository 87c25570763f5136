// The images of the cases, decoded when a case is shown; see html_page.py for their form. They are not PNGs read back
// from a canvas, because browsers that guard against fingerprints change what a canvas gives back.

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

async function inflate(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// {rows, cols, values: Float32Array}.
async function decodeImage({ rows, cols, low, step, data }) {
  const bytes = await inflate(data);
  const size = rows * cols;
  const levels = new Int32Array(size);
  for (let place = 0; place < size; place++) {
    const unsigned = bytes[place] * 256 + bytes[size + place];
    const difference = unsigned & 1 ? -(unsigned + 1) / 2 : unsigned / 2;
    const left = place % cols ? levels[place - 1] : 0;
    const upper = place < cols ? 0 : levels[place - cols];
    levels[place] = difference + ((left + upper) >> 1);
  }
  return { rows, cols, values: Float32Array.from(levels, (level) => low + step * level) };
}

// The borders between classes, as lines along the edges of pixels.
async function decodeOutline({ rows, cols, data }) {
  const numbers = await inflate(data);
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

async function imagesOfCase(index) {
  const stored = JSON.parse(document.getElementById(`images-${index}`).textContent);
  const outlineOf = (classes) => classes && decodeOutline(classes);
  const decoded = (names, images, labels) => Promise.all(names.map(async (name, i) =>
    ({ name, image: images[i] && await decodeImage(images[i]), outline: await outlineOf(labels[i]) })));
  return {
    ...stored,
    truth: await outlineOf(stored.truth),
    references: await decoded(report.references, stored.references, stored.reference_labels),
    methods: await decoded(report.methods, stored.methods, stored.method_labels),
  };
}

// A canvas with an image: numbers to colors by the window, then to the screen by the view that all canvases share.

const GRAY = Uint32Array.from({ length: 256 }, (_, i) => 0xff000000 + 0x010101 * i);
const INFERNO = new Uint32Array(bytesOf(report.color_map).buffer);
// the truth is the wider of the two, so that where they agree it has a core of the other's color
const OUTLINES = { truth: ["#ff4040", 2.6], predicted: ["#ffe03a", 1.2] };

class ImageCanvas {
  constructor(label, role) {
    this.canvas = element("canvas", { role: "img", "aria-label": label, "data-role": role });
    this.raw = document.createElement("canvas");
    this.image = null;
    addGestures(this);
  }

  // The image of an entry of `imagesOfCase` with the outline of the truth and its own, or its error from a reference.
  setImage({ image, outline }, { reference = null, truth = null } = {}) {
    const outlines = reference ? {} : { truth, predicted: outline };
    Object.assign(this, { image, reference, outlines, painted: null });
    if (image === null) return;
    Object.assign(this.raw, { width: image.cols, height: image.rows });
    this.canvas.style.aspectRatio = `${image.cols} / ${image.rows}`;
  }

  // Colors of all pixels. Gray: from level - width / 2 to level + width / 2, in parts of top. Error: black to the
  // last color from 0 to white / gain.
  paint({ top, white }) {
    const { values } = this.image;
    const other = this.reference?.values;
    const pixels = new ImageData(this.raw.width, this.raw.height);
    const words = new Uint32Array(pixels.data.buffer);
    const low = (view.level - view.width / 2) * top;
    const scale = other ? (255 * view.gain) / white : 255 / (view.width * top);
    const colors = other ? INFERNO : GRAY;
    for (let i = 0; i < words.length; i++) {
      const level = ((other ? Math.abs(values[i] - other[i]) : values[i] - low) * scale + 0.5) | 0;
      words[i] = colors[level < 0 ? 0 : level > 255 ? 255 : level];
    }
    this.raw.getContext("2d").putImageData(pixels, 0, 0);
  }

  draw(images) {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight].map((size) => Math.round(size * ratio));
    if (!width || !height) return;
    Object.assign(this.canvas, { width, height }); // which also clears the canvas
    if (this.image === null) return;
    const context = this.canvas.getContext("2d");
    const colors = [view.level, view.width, view.gain].join();
    if (this.painted !== colors) this.paint(images);
    this.painted = colors;
    const { rows, cols } = this.image;
    const scale = (width / cols) * view.zoom;
    context.setTransform(scale, 0, 0, scale, width / 2 - view.x * cols * scale, height / 2 - view.y * rows * scale);
    Object.assign(context, { imageSmoothingEnabled: view.smooth, imageSmoothingQuality: "high", lineCap: "square" });
    context.drawImage(this.raw, 0, 0);
    const unit = ratio / scale; // a pixel of the screen
    const stroke = (path, color, width) => {
      Object.assign(context, { strokeStyle: color, lineWidth: width * unit });
      context.stroke(path);
    };
    for (const [name, path] of Object.entries(view.contours ? this.outlines : {})) if (path) stroke(path, ...OUTLINES[name]);
    if (!view.cursor) return;
    const cross = new Path2D();
    const [x, y] = [view.cursor.col + 0.5, view.cursor.row + 0.5];
    for (const [dx, dy] of [[unit, 0], [-unit, 0], [0, unit], [0, -unit]]) {
      cross.moveTo(x + 4 * dx, y + 4 * dy);
      cross.lineTo(x + 11 * dx, y + 11 * dy);
    }
    stroke(cross, "#4dd0ff", 1.2);
  }

  // The pixel below a point of the window, or null.
  pixelAt(event) {
    if (this.image === null) return null;
    const [across, down] = placeIn(this.canvas, event);
    const { rows, cols } = this.image;
    const row = Math.floor((view.y + down / view.zoom) * rows);
    const col = Math.floor((view.x + across / view.zoom) * cols);
    return row >= 0 && col >= 0 && row < rows && col < cols ? { row, col } : null;
  }
}

// Zoom, window and pointer, one for all canvases, and the gestures that change them.

const MAX_ZOOM = 32;
const view = {
  zoom: 1, x: 0.5, y: 0.5, cursor: null, level: 0.5, width: 1, ownWindow: false, gain: 5,
  size: window.innerWidth > 900 ? 230 : 160, errors: true, contours: true, smooth: true, flicker: false,
};
const limit = (value, low, high) => Math.min(Math.max(value, low), high);

function change(values) {
  Object.assign(view, values);
  view.zoom = limit(view.zoom, 1, MAX_ZOOM);
  for (const axis of ["x", "y"]) view[axis] = limit(view[axis], 0.5 / view.zoom, 1 - 0.5 / view.zoom);
  theViewer.update();
}

const moveBy = (dx, dy) => change({ x: view.x + dx / view.zoom, y: view.y + dy / view.zoom });
const resetZoom = () => change({ zoom: 1, x: 0.5, y: 0.5 });
const setWindow = (level, width) =>
  change({ level: limit(level, 0, 1.5), width: limit(width, 0.01, 2), ownWindow: true });

// Zoom, and keep what is at a place of the canvas (from its middle, in parts of its size) where it is.
function zoomAround(factor, across = 0, down = 0) {
  const zoom = limit(view.zoom * factor, 1, MAX_ZOOM);
  change({ zoom, x: view.x + across / view.zoom - across / zoom, y: view.y + down / view.zoom - down / zoom });
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
  const on = (type, listener, options) => canvas.addEventListener(type, listener, options);
  on("wheel", (event) => {
    if (!wheelZooms && !event.ctrlKey) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 30 : 1;
    zoomAround(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0022)), ...placeIn(canvas, event));
  }, { passive: false });
  on("dblclick", resetZoom);
  on("contextmenu", (event) => event.preventDefault());
  on("pointerdown", (event) => {
    if (event.button === 1) return;
    windowing = event.button === 2 || event.shiftKey;
    pointers.set(event.pointerId, event);
    canvas.setPointerCapture(event.pointerId);
  });
  on("pointermove", (event) => {
    if (event.movementX || event.movementY) wheelZooms = true;
    const before = pointers.get(event.pointerId);
    if (before) {
      drag(canvas, pointers, before, event, windowing);
      pointers.set(event.pointerId, event);
    }
    change(event.pointerType === "touch" ? {} : { cursor: shown.pixelAt(event) });
  });
  for (const type of ["pointerup", "pointercancel"]) on(type, (event) => pointers.delete(event.pointerId));
  on("pointerleave", () => change({ cursor: null }));
}

function drag(canvas, pointers, before, event, windowing) {
  const [start, end] = [before, event].map((each) => placeIn(canvas, each));
  const [dx, dy] = [end[0] - start[0], end[1] - start[1]];
  if (pointers.size === 2) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const apart = (each) => Math.hypot(each.clientX - other.clientX, each.clientY - other.clientY) || 1;
    const middle = placeIn(canvas, other).map((place, axis) => (place + end[axis]) / 2);
    zoomAround(apart(event) / apart(before), ...middle);
    moveBy(-dx / 2, -dy / 2);
  } else if (windowing) {
    setWindow(view.level + dy * 0.8, view.width + dx * 1.5); // up is brighter, right is softer
  } else {
    moveBy(-dx, -dy);
  }
}
