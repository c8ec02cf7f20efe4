// The gallery whose cut-off slider filters its images, with what the model said at the nearest measured cut-off.
class BandSlider {
  constructor(root) {
    this.root = root;
    this.given = JSON.parse(root.querySelector("script").textContent);
    this.band = { shape: "disc", edge: "inclusive", unit: "pixel", ...this.given };
    this.radii = this.given.radii || [];
    this.range = root.querySelector("input");
    this.output = root.querySelector("output");
    this.choices = [...root.querySelectorAll(".choices button")];
    this.panels = Object.fromEntries([...root.querySelectorAll(".panel")].map((panel) => [panel.dataset.part, panel]));
    this.range.addEventListener("input", () => this.schedule());
    this.choices.forEach((button, index) => button.addEventListener("click", () => this.choose(index)));
    this.radii.forEach((radius) => this.offer(radius));
    this.choose(0);
  }

  // A button for each measured cut-off.
  offer(radius) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = String(radius);
    button.dataset.radius = radius;
    button.addEventListener("click", () => { this.range.value = radius; this.draw(); });
    this.root.querySelector(".measured").append(button);
  }

  async choose(index) {
    this.picture = this.given.pictures[index];
    this.choices.forEach((button, at) => button.setAttribute("aria-pressed", String(at === index)));
    const picture = this.choices[index].querySelector("img");
    await picture.decode();
    if (this.given.pictures[index] !== this.picture) return;  // another image was chosen meanwhile
    this.read(picture);
    this.reach();
    this.draw();
    this.root.dataset.ready = String(index);
  }

  // Take the image's pixels and transform them, once; gray images have one channel.
  read(picture) {
    const width = this.width = picture.naturalWidth, height = this.height = picture.naturalHeight;
    const context = this.context("image");
    context.drawImage(picture, 0, 0);
    const pixels = context.getImageData(0, 0, width, height).data;
    const channels = [0, 1, 2].map((c) => Float64Array.from({ length: width * height }, (_, k) => pixels[4 * k + c]));
    const gray = channels[0].every((value, k) => value === channels[1][k] && value === channels[2][k]);
    this.channels = gray ? channels.slice(0, 1) : channels;
    this.spectra = this.channels.map((values) => fourier.forward(values, height, width));
  }

  // Pixels are written and read here, never drawn by a graphics card.
  context(part) {
    const canvas = this.panels[part].querySelector("canvas");
    canvas.width = this.width;
    canvas.height = this.height;
    canvas.classList.toggle("pixels", this.width < 128);
    return canvas.getContext("2d", { willReadFrequently: true });
  }

  // Let the slider run from nothing to the whole image.
  reach() {
    const first = this.range.dataset.set === undefined, whole = this.radii.every(Number.isInteger);
    const step = this.band.unit === "cycles" ? 0.005 : whole ? 1 : 0.5;
    this.range.step = step;
    this.range.max = (Math.floor(fourier.farthest(this.height, this.width, this.band) / step) + 1) * step;
    if (first) {
      const middle = this.radii[Math.floor((this.radii.length - 1) / 2)];
      this.range.value = middle === undefined ? this.range.max / 4 : middle;
      this.range.dataset.set = "";
    }
  }

  schedule() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => { this.pending = 0; this.draw(); });
  }

  draw() {
    const cutoff = Number(this.range.value), band = { ...this.band, cutoff };
    const weights = fourier.mask(this.height, this.width, band);
    const low = fourier.lowPass(this.spectra, weights, this.height, this.width);
    const high = low.map((values, c) => values.map((value, k) => 128 + this.channels[c][k] - value));
    this.paint("low", low);
    this.paint("high", high);
    this.paintSpectrum(weights);
    this.output.textContent = this.words(cutoff);
    this.range.setAttribute("aria-valuetext", this.words(cutoff));
    this.speak(cutoff);
  }

  paint(part, channels) {
    const context = this.context(part), image = context.createImageData(this.width, this.height);
    for (let k = 0; k < this.width * this.height; k++) {
      for (let c = 0; c < 3; c++) image.data[4 * k + c] = Math.round(channels[channels.length > 1 ? c : 0][k]);
      image.data[4 * k + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  // Logarithm of the amplitude, kept frequencies in color, the others in gray; the zero frequency does not set the scale.
  paintSpectrum(weights) {
    const { width, height } = this, size = width * height;
    const power = Float64Array.from({ length: size }, (_, k) =>
      this.spectra.reduce((sum, { re, im }) => sum + re[k] * re[k] + im[k] * im[k], 0));
    const logs = power.map((value) => Math.log1p(Math.sqrt(value)));
    const top = logs.reduce((most, value, k) => (k ? Math.max(most, value) : most), 1e-9);
    const context = this.context("spectrum"), image = context.createImageData(width, height);
    let kept = 0, all = 0;
    for (let k = 0; k < size; k++) {
      if (k) { kept += weights[k] * power[k]; all += power[k]; }
      const y = (Math.floor(k / width) + (height >> 1)) % height, x = (k % width + (width >> 1)) % width;
      const shade = Math.min(1, logs[k] / top), on = weights[k], off = 1 - on, at = 4 * (y * width + x);
      image.data[at] = 255 * shade * (on * 0.98 + off * 0.42);
      image.data[at + 1] = 255 * shade * (on * 0.72 + off * 0.42);
      image.data[at + 2] = 255 * shade * (on * 0.24 + off * 0.46) + 30 * on;
      image.data[at + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    const share = all ? `${(100 * kept / all).toFixed(1)}% of the contrast energy lies in the low band` : "";
    this.say("spectrum", [[share, ""]]);
  }

  words(cutoff) {
    const value = Number(cutoff.toFixed(3)), unit = this.band.unit === "cycles" ? "cycles/pixel" : "pixels";
    if (this.band.edge === "half_open") return `−${value} ≤ k < ${value} ${unit}`;
    const letter = this.band.shape === "square" ? "|k|" : "r";
    return `${letter} ${this.band.edge === "exclusive" ? "<" : "≤"} ${value} ${unit}`;
  }

  // The model's predictions: of the whole image, and of both sides at the nearest measured cut-off.
  speak(cutoff) {
    const { truth, full } = this.picture;
    this.say("image", [
      [truth === null || truth === undefined ? "no label" : `truth: ${truth}`, ""],
      this.verdict(full, "model: "),
    ]);
    const away = this.radii.map((radius) => Math.abs(radius - cutoff)), nearest = away.indexOf(Math.min(...away));
    const radius = this.radii[nearest], letter = this.band.shape === "square" ? "k" : "r";
    const exact = away[nearest] < 1e-9, where = `measured at ${letter} = ${radius}${exact ? "" : ", the nearest"}`;
    for (const part of ["low", "high"]) {
      const found = nearest < 0 ? undefined : (this.picture[part] || [])[nearest];
      this.say(part, [this.verdict(found, ""), [found ? where : "", "where"]]);
    }
    for (const button of this.root.querySelectorAll(".measured button")) {
      button.setAttribute("aria-pressed", String(exact && Number(button.dataset.radius) === radius));
    }
  }

  verdict(found, before) {
    if (!found) return ["not measured", "none"];
    const said = typeof found === "string" ? { prediction: found } : found, { truth } = this.picture;
    const sure = Number.isFinite(said.confidence) ? `, ${(100 * said.confidence).toFixed(1)}%` : "";
    const known = truth !== null && truth !== undefined;
    const kind = !known ? "" : said.prediction === truth ? "right" : "wrong";
    return [`${before}${said.prediction}${sure}`, kind];
  }

  // Lines of text under a panel; always as text, never as markup.
  say(part, lines) {
    const place = this.panels[part].querySelector(".said");
    const key = JSON.stringify(lines);
    if (place.dataset.key === key) return;  // nothing new, nothing to read aloud
    place.dataset.key = key;
    place.replaceChildren(...lines.filter(([text]) => text).map(([text, kind]) => {
      const line = document.createElement("p");
      line.textContent = text;
      if (kind) line.className = kind;
      return line;
    }));
    const heading = this.panels[part].querySelector("h4").textContent;
    this.panels[part].querySelector("canvas").setAttribute("aria-label", `${heading}: ${lines.map(([text]) => text).join(", ")}`);
  }
}

for (const root of document.querySelectorAll("[data-bands]")) new BandSlider(root);
