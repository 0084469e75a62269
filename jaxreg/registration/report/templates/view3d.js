// The view in three dimensions: NiiVue's canvas, and what the reader chooses.

(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const packed = JSON.parse(byId("data").textContent);
  const OTHER = { fixed: "moved", moved: "fixed" };
  const NOTICED = 0.5; // |log2 det J| from which the colour is no longer translucent
  const TRANSLUCENT_BELOW = 2; // NiiVue's name for it
  const CUT = [0.1, 270, 0]; // depth, azimuth and elevation of the plane
  const viewer = new globalThis.niivue.Niivue({
    backColor: [0, 0, 0, 1],
    multiplanarShowRender: 1, // always
    multiplanarLayout: 2, // a grid
    crosshairWidth: 0.5,
    show3Dcrosshair: true,
    isClipAllVolumes: true, // the cut goes through what lies over the image, too
    isColorbar: false,
    isOrientCube: true,
    dragAndDropEnabled: false,
    loadingText: "",
  });
  viewer.onLocationChange = (place) => { byId("readout").textContent = described(place); };
  const volumes = {};

  // What lies under the crosshair, in words.
  function described({ mm, vox }) {
    const value = (name) => volumes[name].getValue(...vox);
    const parts = [`${[...mm].slice(0, 3).map((x) => Math.round(x) + 0).join(", ")} mm`];
    if (volumes.structures) parts.push(packed.structures.names[value("structures")] || "no structure");
    const folds = volumes.folds && value("folds") > 0;
    parts.push(folds ? "folds" : `det J ${(2 ** value("jacobian")).toFixed(2)}`);
    return parts.join(" · ");
  }

  function addColors() {
    const colors = { larger: [235, 60, 45], smaller: [60, 130, 250] };
    for (const [name, [red, green, blue]] of Object.entries(colors)) {
      viewer.addColormap(name, {
        I: [0, 255], R: [0.6 * red, red], G: [0.6 * green, green], B: [0.6 * blue, blue], A: [0, 255],
      });
    }
  }

  // A volume whose colours begin at `low` and are full at `high`.
  async function load(name, colormap, [low, high], more = {}) {
    const volume = await globalThis.niivue.NVImage.loadFromBase64({
      base64: packed.volumes[name], name: `${name}.nii.gz`, colormap, ...more,
    });
    Object.assign(volume, { cal_min: low, cal_max: high });
    volumes[name] = volume;
  }

  // Put the chosen image and what lies over it onto the canvas.
  function draw() {
    const image = byId("image").value, overlay = byId("overlay").value;
    const over = overlay === "other" ? OTHER[image] : overlay;
    for (const volume of [...viewer.volumes]) viewer.removeVolume(volume);
    for (const name of ["fixed", "moved"]) volumes[name].colormap = name === image ? "gray" : "red";
    volumes[image].opacity = 1;
    viewer.addVolume(volumes[image]);
    if (overlay !== "none") {
      volumes[over].opacity = Number(byId("opacity").value);
      viewer.addVolume(volumes[over]);
    }
    viewer.updateGLVolume();
  }

  function arrange() {
    viewer.setRadiologicalConvention(byId("radiological").checked);
    viewer.setSliceType(byId("show").value === "render" ? viewer.sliceTypeRender : viewer.sliceTypeMultiplanar);
    viewer.setClipPlane(byId("cut").checked ? CUT : [2, 0, 0]);
    viewer.setClipPlaneColor([0.3, 0.3, 0.3, 0.5]);
  }

  async function start() {
    await viewer.attachToCanvas(byId("space"));
    addColors();
    await load("fixed", "gray", [0, 255]);
    await load("moved", "gray", [0, 255]);
    await load("jacobian", "larger", [NOTICED, 2], { colormapNegative: "smaller" });
    volumes.jacobian.colormapType = TRANSLUCENT_BELOW;
    if (packed.volumes.folds) await load("folds", "gray", [0, 1]); // for the words alone
    if (packed.structures) {
      await load("structures", "gray", [0, 255]);
      volumes.structures.setColormapLabel(packed.structures.table);
    }
    draw();
    arrange();
    byId("opacity").addEventListener("input", draw);
    for (const id of ["image", "overlay"]) byId(id).addEventListener("change", draw);
    for (const id of ["show", "cut", "radiological"]) byId(id).addEventListener("change", arrange);
    globalThis.view3d = viewer;
    document.documentElement.dataset.state = "ready";
  }

  start().catch((error) => {
    const trouble = byId("trouble");
    trouble.textContent = `The view cannot be drawn: ${error.message}. It needs WebGL 2.`;
    trouble.hidden = false;
  });
})();
