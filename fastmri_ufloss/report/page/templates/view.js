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
