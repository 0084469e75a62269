"use strict";
// Pictures of volumes. A volume is {data, shape}, voxel (x, y, z) at x + X·(y + Y·z); axes are RAS.
// The subject's left is on the left, front (axial) or top is up, the front is right (sagittal).

const PLANES = {
  axial: { normal: 2, across: 0, up: 1 },
  coronal: { normal: 1, across: 0, up: 2 },
  sagittal: { normal: 0, across: 1, up: 2 },
};
const ENDS = [["L", "R"], ["P", "A"], ["I", "S"]];
const EDGE_GREY_LEVELS = 7; // gradient per voxel from which a border counts
const EDGE_COLOR = "#ffb000";
const GRID_STEP = 4;
const TILES = 7;

async function unpack(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Kind(await new Response(stream).arrayBuffer());
}

// Volumes of n frames that were stored as differences, modulo 256, from frame to frame.
function undoDifferences(bytes, n) {
  const size = bytes.length / n;
  for (let i = size; i < bytes.length; i++) bytes[i] += bytes[i - size];
  return Array.from({ length: n }, (_, k) => bytes.subarray(k * size, (k + 1) * size));
}

// Bytes of a slice, first row at the top of the picture.
function sliceOf(volume, plane, index) {
  const { normal, across, up } = PLANES[plane];
  const shape = volume.shape;
  const stride = [1, shape[0], shape[0] * shape[1]];
  const width = shape[across], height = shape[up];
  const data = new Uint8Array(width * height);
  for (let row = 0; row < height; row++) {
    const start = index * stride[normal] + (height - 1 - row) * stride[up];
    for (let col = 0; col < width; col++) {
      data[row * width + col] = volume.data[start + col * stride[across]];
    }
  }
  return { data, width, height };
}

// Paint a slice over the canvas; `color` gives [red, green, blue, alpha] of a byte. `reach` is the
// part of the canvas that the slice covers: halved volumes of an odd side reach beyond it.
function paint(context, slice, color, reach = [1, 1]) {
  const pixels = new ImageData(slice.width, slice.height);
  const table = Array.from({ length: 256 }, (_, byte) => color(byte));
  slice.data.forEach((byte, i) => pixels.data.set(table[byte], 4 * i));
  const small = document.createElement("canvas");
  small.width = slice.width;
  small.height = slice.height;
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, context.canvas.width * reach[0], context.canvas.height * reach[1]);
}

const grey = (byte) => [byte, byte, byte, 255];
const dim = (byte) => [0.55 * byte, 0.55 * byte, 0.55 * byte, 255];

// Red where the moving brain is larger (det J > 1), blue where it is smaller, full at 4 times and a
// quarter; green where it folds. `steps` of the byte double the volume.
function determinantColor(steps) {
  return (byte) => {
    if (byte === 0) return [0, 230, 0, 255];
    const change = Math.max(-1, Math.min(1, (byte - 128) / (2 * steps)));
    const alpha = 235 * Math.abs(change) ** 0.8;
    return change > 0 ? [235, 60, 45, alpha] : [60, 130, 250, alpha];
  };
}

// Nothing, violet, orange, yellow as values grow.
function heatColor(byte) {
  const t = byte / 255;
  const red = 255 * Math.min(1, 0.35 + 1.1 * t);
  const green = 255 * Math.max(0, 1.5 * t - 0.45);
  const blue = 255 * Math.max(0, 0.55 - 0.8 * Math.abs(t - 0.35));
  return [red, green, blue, 245 * Math.min(1, 1.6 * t)];
}

// Squares of the context's slice, every other one of `TILES` along the longest side.
function clipToTiles(context, slice) {
  const { width, height } = context.canvas;
  const side = Math.ceil(Math.max(slice.width, slice.height) / TILES);
  const dx = (side * width) / slice.width, dy = (side * height) / slice.height;
  context.beginPath();
  for (let i = 0; i * dx < width; i++) {
    for (let j = i % 2; j * dy < height; j += 2) context.rect(i * dx, j * dy, dx, dy);
  }
  context.clip();
}

function blurred(slice) {
  const kernel = [0.105, 0.235, 0.32, 0.235, 0.105];
  const { width, height } = slice;
  const clamp = (i, n) => Math.max(0, Math.min(n - 1, i));
  const pass = (source, at) => {
    const out = new Float32Array(width * height);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        kernel.forEach((weight, k) => { out[y * width + x] += weight * source[at(x, y, k - 2)]; });
      }
    }
    return out;
  };
  const rows = pass(slice.data, (x, y, k) => y * width + clamp(x + k, width));
  return pass(rows, (x, y, k) => clamp(y + k, height) * width + x);
}

// Segments [x0, y0, x1, y1, …] of the borders in a slice, in its pixels: zero crossings of the
// Laplacian of the blurred slice where its gradient is steep (Marr & Hildreth 1980).
function edgesOf(slice) {
  const { width, height } = slice;
  const smooth = blurred(slice);
  const laplacian = new Float32Array(width * height), steep = new Uint8Array(width * height);
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      const i = y * width + x;
      const [l, r, u, d] = [smooth[i - 1], smooth[i + 1], smooth[i - width], smooth[i + width]];
      laplacian[i] = l + r + u + d - 4 * smooth[i];
      steep[i] = Math.hypot(r - l, d - u) / 2 > EDGE_GREY_LEVELS ? 1 : 0;
    }
  }
  const segments = [];
  for (let y = 0; y < height - 1; y++) {
    for (let x = 0; x < width - 1; x++) {
      const i = y * width + x;
      if (!(steep[i] & steep[i + 1] & steep[i + width] & steep[i + width + 1])) continue;
      const corners = [[x, y, i], [x + 1, y, i + 1], [x + 1, y + 1, i + width + 1], [x, y + 1, i + width]];
      const points = [];
      corners.forEach(([ax, ay, a], k) => {
        const [bx, by, b] = corners[(k + 1) % 4];
        const low = laplacian[a], high = laplacian[b];
        if ((low > 0) === (high > 0)) return;
        const t = low / (low - high);
        points.push(ax + t * (bx - ax), ay + t * (by - ay));
      });
      segments.push(...points);
    }
  }
  return segments;
}

function drawEdges(context, slice) {
  const { width, height } = context.canvas;
  const sx = width / slice.width, sy = height / slice.height;
  const segments = edgesOf(slice);
  context.beginPath();
  for (let i = 0; i < segments.length; i += 4) {
    context.moveTo((segments[i] + 0.5) * sx, (segments[i + 1] + 0.5) * sy);
    context.lineTo((segments[i + 2] + 0.5) * sx, (segments[i + 3] + 0.5) * sy);
  }
  context.strokeStyle = EDGE_COLOR;
  context.lineWidth = 1.2 * devicePixelRatio;
  context.stroke();
}

// u (voxels of the display grid) at a voxel of it; the field is halved: its voxel i covers 2i, 2i + 1.
function displacementAt(field, voxel) {
  const [nx, ny, nz] = field.shape;
  const at = voxel.map((v, a) => Math.max(0, Math.min((v - 0.5) / 2, field.shape[a] - 1)));
  const low = at.map((v, a) => Math.max(0, Math.min(Math.floor(v), field.shape[a] - 2)));
  const u = [0, 0, 0];
  for (let corner = 0; corner < 8; corner++) {
    const bits = [corner & 1, (corner >> 1) & 1, corner >> 2];
    const weight = bits.reduce((w, bit, a) => w * (bit ? at[a] - low[a] : 1 - at[a] + low[a]), 1);
    if (weight === 0) continue;
    const i = low[0] + bits[0] + nx * (low[1] + bits[1] + ny * (low[2] + bits[2]));
    for (let a = 0; a < 3; a++) u[a] += weight * field.unit * field.data[i + a * nx * ny * nz];
  }
  return u;
}

// Every `GRID_STEP`th line of the display grid at x + u(x), where the moving image is sampled.
function drawGrid(context, field, shape, plane, index) {
  const { normal, across, up } = PLANES[plane];
  const sx = context.canvas.width / shape[across], sy = context.canvas.height / shape[up];
  const line = (along, other, fixedAt) => {
    for (let i = 0; i < shape[along]; i++) {
      const voxel = [0, 0, 0];
      voxel[normal] = index;
      voxel[other] = fixedAt;
      voxel[along] = i;
      const u = displacementAt(field, voxel);
      const x = (voxel[across] + u[across] + 0.5) * sx;
      const y = (shape[up] - 1 - voxel[up] - u[up] + 0.5) * sy;
      if (i === 0) context.moveTo(x, y);
      else context.lineTo(x, y);
    }
  };
  context.beginPath();
  for (let i = 0; i < shape[across]; i += GRID_STEP) line(up, across, i);
  for (let i = 0; i < shape[up]; i += GRID_STEP) line(across, up, i);
  context.strokeStyle = EDGE_COLOR;
  context.lineWidth = 0.9 * devicePixelRatio;
  context.stroke();
}

function drawLetters(context, plane, flips) {
  const { width, height } = context.canvas;
  const { across, up } = PLANES[plane];
  const size = 11 * devicePixelRatio;
  context.font = `${size}px system-ui, sans-serif`;
  context.fillStyle = "#b8c0cc";
  context.textBaseline = "middle";
  context.textAlign = "left";
  const [left, right] = flips ? ENDS[across].toReversed() : ENDS[across];
  context.fillText(left, 0.4 * size, height / 2);
  context.textAlign = "right";
  context.fillText(right, width - 0.4 * size, height / 2);
  context.textAlign = "center";
  context.fillText(ENDS[up][1], width / 2, 0.8 * size);
  context.fillText(ENDS[up][0], width / 2, height - 0.8 * size);
}

function drawCrosshair(context, shape, plane, at) {
  const { width, height } = context.canvas;
  const { across, up } = PLANES[plane];
  const x = ((at[across] + 0.5) * width) / shape[across];
  const y = ((shape[up] - 1 - at[up] + 0.5) * height) / shape[up];
  const gap = 9 * devicePixelRatio;
  context.beginPath();
  for (const [a, b] of [[0, x - gap], [x + gap, width]]) { context.moveTo(a, y); context.lineTo(b, y); }
  for (const [a, b] of [[0, y - gap], [y + gap, height]]) { context.moveTo(x, a); context.lineTo(x, b); }
  context.strokeStyle = "rgba(90, 200, 250, 0.55)";
  context.lineWidth = devicePixelRatio;
  context.stroke();
}

// Similarity and folds against λ as two small line charts, the shown λ marked.
function drawCurves(parent, lams, curves, marked) {
  const space = "http://www.w3.org/2000/svg";
  const add = (node, name, attributes, content) => {
    const child = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) child.setAttribute(key, value);
    if (content !== undefined) child.textContent = content;
    node.append(child);
    return child;
  };
  parent.replaceChildren();
  for (const { name, values, lowest } of curves) {
    const known = values.filter((v) => v !== null);
    if (!known.length) continue;
    const bottom = Math.min(...known, lowest ?? Infinity), top = Math.max(...known);
    const x = (lam) => 44 + (lam - lams[0]) * (204 / (lams.at(-1) - lams[0] || 1));
    const y = (v) => 78 - (v - bottom) * (52 / (top - bottom || 1));
    const svg = add(parent, "svg", { viewBox: "0 0 260 100", role: "img", "aria-label": `${name} against λ` });
    add(svg, "text", { x: 2, y: 12 }, name);
    add(svg, "path", { d: "M44 78H248", class: "axis" });
    for (const v of top > bottom ? [bottom, top] : [bottom]) {
      add(svg, "text", { x: 40, y: y(v) + 3, "text-anchor": "end", class: "tick" }, v.toPrecision(3));
    }
    for (const lam of [lams[0], lams.at(-1)]) {
      add(svg, "text", { x: x(lam), y: 92, "text-anchor": "middle", class: "tick" }, `λ ${lam}`);
    }
    const points = lams.map((lam, i) => [x(lam), values[i]]).filter(([, v]) => v !== null);
    add(svg, "polyline", { points: points.map(([a, v]) => `${a},${y(v)}`).join(" "), class: "curve" });
    if (values[marked] != null) {
      add(svg, "circle", { cx: x(lams[marked]), cy: y(values[marked]), r: 4, class: "mark" });
    }
  }
}
