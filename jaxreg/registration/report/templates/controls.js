// What the reader chooses, and the pictures that follow from it.

const PICTURES = {
  fixed: "Fixed",
  moving: "Moving, on its own grid",
  affine: "Moving after the affine (before)",
  moved: "Moved (after)",
  grid: "Warped grid",
  jacobian: "Local volume change (det J)",
  spread: "λ spread",
};
const COMPARED = ["affine", "moved"]; // what a checkerboard or flicker may show beside the fixed image
const EDGED = ["affine", "moved", "jacobian", "spread"];
const FLICKER_MS = 600;

const byId = (id) => document.getElementById(id);
const PLANE_NAMES = Object.keys(PLANES);

async function load() {
  const packed = JSON.parse(byId("data").textContent);
  const half = packed.shape.map((n) => Math.ceil(n / 2));
  const volume = async (text, shape) => ({ data: await unpack(text, Uint8Array), shape });
  const results = async ({ count, moved, jacobian, displacement, unit }) => {
    const movedData = undoDifferences(await unpack(moved, Uint8Array), count);
    const jacobianData = undoDifferences(await unpack(jacobian, Uint8Array), count);
    const field = await unpack(displacement, Int8Array);
    const size = field.length / count;
    return movedData.map((data, k) => ({
      moved: { data, shape: packed.shape },
      jacobian: { data: jacobianData[k], shape: half },
      field: { data: field.subarray(k * size, (k + 1) * size), shape: half, unit },
    }));
  };
  return {
    ...packed,
    fixed: await volume(packed.fixed, packed.shape),
    affine: await volume(packed.affine, packed.shape),
    moving: await volume(packed.moving, packed.moving_shape),
    spread: packed.spread && { ...(await volume(packed.spread.data, half)), top_mm: packed.spread.top_mm },
    result: (await results(packed.result))[0],
    frames: packed.frames ? await results(packed.frames) : [],
  };
}

// A point by the rows of an affine.
const transformed = (affine, point) =>
  affine.slice(0, 3).map((row) => row[0] * point[0] + row[1] * point[1] + row[2] * point[2] + row[3]);

function start(report) {
  const state = {
    at: report.shape.map((n) => Math.floor(n / 2)),
    rows: ["affine", "moved"],
    compare: "edges",
    frame: null, // null: the result itself
    showsFixed: false, // the half of a flicker
    crosshair: true,
    radiological: false, // the patient's left at the right
  };
  let timer = null, asked = false;
  const shown = () => (state.frame === null ? report.result : report.frames[state.frame]);
  const lamText = () => (state.frame === null ? "the result" : `λ = ${report.lams[state.frame]}`);

  function pictureOf(kind) {
    return { fixed: report.fixed, moving: report.moving, affine: report.affine, moved: shown().moved }[kind];
  }

  // The slice of the moving image at the same fraction of its own extent.
  function movingIndex(axis) {
    return Math.min(report.moving_shape[axis] - 1, Math.floor(((state.at[axis] + 0.5) / report.shape[axis]) * report.moving_shape[axis]));
  }

  function draw(context, kind, plane) {
    const flips = mirrors(plane);
    context.save();
    if (flips) {
      context.translate(context.canvas.width, 0);
      context.scale(-1, 1);
    }
    drawPicture(context, kind, plane);
    context.restore();
    drawLetters(context, plane, flips);
  }

  // Whether a plane is shown with the patient's left at the right.
  function mirrors(plane) {
    return state.radiological && PLANES[plane].across === 0;
  }

  function drawPicture(context, kind, plane) {
    const { normal } = PLANES[plane];
    const index = state.at[normal];
    const fixed = sliceOf(report.fixed, plane, index);
    if (kind === "moving") {
      paint(context, sliceOf(report.moving, plane, movingIndex(normal)), grey);
      return;
    }
    if (kind === "grid") {
      paint(context, sliceOf(report.affine, plane, index), dim);
      drawGrid(context, shown().field, report.shape, plane, index);
    } else if (kind === "jacobian" || kind === "spread") {
      paint(context, fixed, dim);
      const map = kind === "jacobian" ? shown().jacobian : report.spread;
      const slice = sliceOf(map, plane, index >> 1);
      const reach = [(2 * slice.width) / fixed.width, (2 * slice.height) / fixed.height];
      paint(context, slice, kind === "jacobian" ? determinantColor(report.determinant_steps) : heatColor, reach);
    } else {
      const flickers = state.compare === "flicker" && state.showsFixed && COMPARED.includes(kind);
      paint(context, flickers ? fixed : sliceOf(pictureOf(kind), plane, index), grey);
      if (state.compare === "checkerboard" && COMPARED.includes(kind)) {
        context.save();
        clipToTiles(context, fixed);
        paint(context, fixed, grey);
        context.restore();
      }
    }
    if (state.compare === "edges" && EDGED.includes(kind)) drawEdges(context, fixed);
    if (state.crosshair) drawCrosshair(context, report.shape, plane, state.at);
  }

  // Pixels of a canvas: as many as the screen has, the shape of the subject in millimetres.
  function fit(canvas, shape, spacing, plane, scale) {
    const { across, up } = PLANES[plane];
    const size = [shape[across] * spacing[across] * scale, shape[up] * spacing[up] * scale].map(Math.round);
    [canvas.width, canvas.height] = size.map((n) => Math.max(1, Math.round(n * devicePixelRatio)));
    [canvas.style.width, canvas.style.height] = size.map((n) => `${n}px`);
  }

  // CSS pixels a millimetre: what fits the width, and two rows of pictures on the screen.
  function screenScale() {
    const mm = report.shape.map((n, a) => n * report.spacing_mm[a]);
    const views = document.querySelector(".views");
    if (matchMedia("(max-width: 700px)").matches) {
      return (views.clientWidth - 12) / (2 * Math.max(mm[0], mm[1])); // two pictures side by side
    }
    const wide = (views.clientWidth - 24) / (2 * mm[0] + mm[1]);
    const room = innerHeight - (views.getBoundingClientRect().top + scrollY) - 120;
    return Math.max(Math.min(wide, room / 2 / Math.max(mm[1], mm[2])), 0.6 * wide);
  }

  function caption(row) {
    const kind = state.rows[row];
    if (kind === "jacobian") return "¼ (blue) to 4 (red) times the fixed volume · green: folds";
    if (kind === "spread") return `0 to ${report.spread.top_mm.toPrecision(2)} mm: how far the map moves with λ; no measure of error`;
    if (kind === "grid") return "lines of the fixed grid, drawn where they sample the image after the affine";
    if (!COMPARED.includes(kind) || state.compare === "none") return "";
    if (state.compare === "flicker") return state.showsFixed ? "now: fixed" : `now: ${kind === "moved" ? "moved" : "affine"}`;
    return state.compare === "edges" ? "lines: edges of the fixed image" : "tiles: fixed in turn";
  }

  function render() {
    asked = false;
    const scale = screenScale();
    state.rows.forEach((kind, row) => {
      for (const plane of PLANE_NAMES) {
        const canvas = byId(`view-${row}-${plane}`);
        const own = kind === "moving";
        const shape = own ? report.moving_shape : report.shape;
        const spacing = own ? report.moving_spacing_mm : report.spacing_mm;
        const { across, up } = PLANES[plane];
        const ratio = own ? Math.min(1, ...[across, up].map((a) => (report.shape[a] * report.spacing_mm[a]) / (shape[a] * spacing[a]))) : 1;
        fit(canvas, shape, spacing, plane, scale * ratio);
        canvas.setAttribute("aria-label", `${PICTURES[kind]}, ${plane}, slice at ${sliceText(plane)}`);
        draw(canvas.getContext("2d"), kind, plane);
      }
      byId(`key-${row}`).className = `key ${kind}`;
      byId(`caption-${row}`).textContent = caption(row);
      byId(`picture-${row}`).value = kind;
    });
    byId("compare").value = state.compare;
    for (const plane of PLANE_NAMES) {
      const index = state.at[PLANES[plane].normal];
      byId(`slice-${plane}`).value = index;
      byId(`slice-${plane}`).setAttribute("aria-valuetext", sliceText(plane));
      byId(`index-${plane}`).textContent = sliceText(plane);
    }
    readOut();
  }

  // Where the crosshair is along the normal of a plane, in the space of the fixed image.
  function sliceText(plane) {
    const axis = PLANES[plane].normal;
    return `${"xyz"[axis]} ${transformed(report.to_world, state.at)[axis].toFixed(1)} mm`;
  }

  // Where the crosshair is in the fixed image.
  function placeText() {
    const world = transformed(report.to_world, state.at).map((v) => v.toFixed(1));
    const voxel = transformed(report.to_fixed_voxel, state.at).map(Math.round);
    const inside = voxel.every((v, axis) => v >= 0 && v < report.fixed_shape[axis]);
    const there = inside ? `voxel ${voxel.join(", ")}, counted from 0` : "outside its voxels";
    return `fixed image: ${world.join(", ")} mm (RAS), ${there}`;
  }

  function readOut() {
    const [x, y, z] = state.at;
    const [nx, ny] = shown().jacobian.shape;
    const i = (x >> 1) + nx * ((y >> 1) + ny * (z >> 1));
    const u = Math.hypot(...displacementAt(shown().field, state.at).map((v, a) => v * report.spacing_mm[a]));
    const code = shown().jacobian.data[i];
    const det = code === 0 ? "≤ 0 (folds)" : (2 ** ((code - 128) / report.determinant_steps)).toFixed(2);
    const parts = [placeText(), `displaced by ${u.toFixed(1)} mm`, `det J ${det}`];
    if (report.spread) parts.push(`${PICTURES.spread} ${((report.spread.data[i] / 255) * report.spread.top_mm).toFixed(2)} mm`);
    byId("readout").textContent = `${parts.join(" · ")} · ${lamText()}`;
  }

  function ask() {
    if (!asked) requestAnimationFrame(render);
    asked = true;
  }

  function flicker() {
    clearInterval(timer);
    state.showsFixed = false;
    if (state.compare === "flicker") timer = setInterval(() => { state.showsFixed = !state.showsFixed; ask(); }, FLICKER_MS);
  }

  function choose(change) {
    Object.assign(state, change);
    if ("compare" in change) flicker();
    ask();
  }

  function showFrame(frame) {
    const lams = report.lams;
    const home = report.lam ?? lams[Math.floor(lams.length / 2)];
    const nearest = lams.reduce((best, lam, i) => (Math.abs(lam - home) < Math.abs(lams[best] - home) ? i : best), 0);
    choose({ frame });
    byId("lam").value = frame ?? nearest;
    const known = (value, unit) => (value === null ? "?" : `${value.toPrecision(3)}${unit}`);
    const text = frame === null
      ? `the result${report.lam === null ? "" : ` (λ = ${report.lam})`}`
      : `${lamText()}: similarity ${known(report.similarity[frame], "")}, folds ${known(report.folds_percent[frame], " %")}`;
    byId("lam-value").textContent = text;
    byId("lam").setAttribute("aria-valuetext", text);
    byId("lam-result").disabled = frame === null;
    drawCurves(byId("chart"), lams, [
      { name: "similarity (higher: more alike)", values: report.similarity },
      { name: "folding voxels, %", values: report.folds_percent, lowest: 0 },
    ], frame ?? (report.lam === null ? -1 : nearest));
  }

  function connect() {
    for (const row of [0, 1]) {
      const select = byId(`picture-${row}`);
      for (const [kind, name] of Object.entries(PICTURES)) {
        if (kind !== "spread" || report.spread) select.add(new Option(name, kind));
      }
      select.addEventListener("change", () => choose({ rows: state.rows.with(row, select.value) }));
      for (const plane of PLANE_NAMES) connectCanvas(byId(`view-${row}-${plane}`), plane, row);
    }
    for (const plane of PLANE_NAMES) {
      const slider = byId(`slice-${plane}`), axis = PLANES[plane].normal;
      slider.max = report.shape[axis] - 1;
      slider.addEventListener("input", () => choose({ at: state.at.with(axis, Number(slider.value)) }));
    }
    byId("compare").addEventListener("change", (event) => choose({ compare: event.target.value }));
    for (const name of ["crosshair", "radiological"]) {
      byId(name).addEventListener("change", (event) => choose({ [name]: event.target.checked }));
    }
    for (const button of document.querySelectorAll("[data-rows]")) {
      button.addEventListener("click", () => choose({ rows: button.dataset.rows.split(" "), compare: button.dataset.compare }));
    }
    if (report.frames.length) {
      byId("sweep").hidden = byId("curves").hidden = false;
      byId("lam").max = report.frames.length - 1;
      byId("lam").addEventListener("input", () => showFrame(Number(byId("lam").value)));
      byId("lam-result").addEventListener("click", () => showFrame(null));
      showFrame(null);
    }
    addEventListener("resize", ask);
  }

  // A click or a drag moves the crosshair, the wheel goes through the slices.
  function connectCanvas(canvas, plane, row) {
    const { normal, across, up } = PLANES[plane];
    const move = (event) => {
      const box = canvas.getBoundingClientRect();
      const part = (a, fraction) => Math.max(0, Math.min(report.shape[a] - 1, Math.floor(fraction * report.shape[a])));
      const at = [...state.at];
      const fraction = (event.clientX - box.left) / box.width;
      at[across] = part(across, mirrors(plane) ? 1 - fraction : fraction);
      at[up] = part(up, 1 - (event.clientY - box.top) / box.height);
      choose({ at });
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); move(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1) move(event); });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const index = state.at[normal] - Math.sign(event.deltaY);
      choose({ at: state.at.with(normal, Math.max(0, Math.min(report.shape[normal] - 1, index))) });
    }, { passive: false });
  }

  connect();
  render();
  document.documentElement.dataset.state = "ready";
}

load().then(start).catch((error) => {
  byId("trouble").hidden = false;
  byId("trouble").textContent = `The pictures cannot be shown in this browser (${error}); Chrome, Firefox and Safari of 2023 or later can.`;
  document.documentElement.dataset.state = "failed";
});
