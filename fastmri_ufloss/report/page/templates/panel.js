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
