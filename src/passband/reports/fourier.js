"use strict";
// Fourier transforms of images of any size, and bands of their frequencies.
const fourier = (() => {
  const plans = new Map();

  // The factors of n and the n-th roots of unity, kept for the next transform of that length.
  function plan(n) {
    if (!plans.has(n)) {
      const factors = [];
      let rest = n;
      for (let p = 2; rest > 1; p++) {
        while (rest % p === 0) { factors.push(p); rest /= p; }
      }
      const cos = new Float64Array(n), sin = new Float64Array(n);
      for (let k = 0; k < n; k++) {
        cos[k] = Math.cos(2 * Math.PI * k / n);
        sin[k] = -Math.sin(2 * Math.PI * k / n);
      }
      const widest = Math.max(1, ...factors);
      plans.set(n, { n, factors, cos, sin, re: new Float64Array(widest), im: new Float64Array(widest) });
    }
    return plans.get(n);
  }

  // Mixed radix, decimation in time: split n points into p interleaved parts, transform each, combine them.
  function step(p_, level, n, re, im, from, stride, outRe, outIm, to) {
    if (n === 1) { outRe[to] = re[from]; outIm[to] = im[from]; return; }
    const p = p_.factors[level], m = n / p, unit = p_.n / n;
    for (let q = 0; q < p; q++) {
      step(p_, level + 1, m, re, im, from + q * stride, stride * p, outRe, outIm, to + q * m);
    }
    const { cos, sin, re: tRe, im: tIm } = p_;
    for (let k = 0; k < m; k++) {
      for (let q = 0; q < p; q++) {
        const at = to + q * m + k, w = q * k * unit;
        tRe[q] = outRe[at] * cos[w] - outIm[at] * sin[w];
        tIm[q] = outRe[at] * sin[w] + outIm[at] * cos[w];
      }
      for (let j = 0; j < p; j++) {
        let sumRe = 0, sumIm = 0;
        for (let q = 0; q < p; q++) {
          const w = (q * j % p) * (p_.n / p);
          sumRe += tRe[q] * cos[w] - tIm[q] * sin[w];
          sumIm += tRe[q] * sin[w] + tIm[q] * cos[w];
        }
        outRe[to + j * m + k] = sumRe;
        outIm[to + j * m + k] = sumIm;
      }
    }
  }

  // In place, first along the rows, then along the columns.
  function transform(re, im, height, width) {
    const pass = (count, length, start, stride) => {
      const outRe = new Float64Array(length), outIm = new Float64Array(length), way = plan(length);
      for (let line = 0; line < count; line++) {
        const from = line * start;
        step(way, 0, length, re, im, from, stride, outRe, outIm, 0);
        for (let k = 0; k < length; k++) { re[from + k * stride] = outRe[k]; im[from + k * stride] = outIm[k]; }
      }
    };
    pass(height, width, width, 1);
    pass(width, height, 1, width);
  }

  function forward(values, height, width) {
    const re = Float64Array.from(values), im = new Float64Array(values.length);
    transform(re, im, height, width);
    return { re, im };
  }

  // The frequency of a bin, counted from the zero frequency at n >> 1 of the shifted spectrum.
  const frequency = (index, n) => (index < n - (n >> 1) ? index : index - n);

  function distance(u, v, band) {
    return band.shape === "square" ? Math.max(Math.abs(u), Math.abs(v)) : Math.sqrt(u * u + v * v);
  }

  function keeps(u, v, band) {
    if (band.edge === "half_open") {
      return -band.cutoff <= u && u < band.cutoff && -band.cutoff <= v && v < band.cutoff;
    }
    const far = distance(u, v, band);
    return band.edge === "exclusive" ? far < band.cutoff : far <= band.cutoff;
  }

  // Weights of the low band, unshifted. A band without symmetry weighs each bin with its mirror image by a half each,
  // which gives the real part of what it would give.
  function mask(height, width, band) {
    const scaleY = band.unit === "cycles" ? 1 / height : 1, scaleX = band.unit === "cycles" ? 1 / width : 1;
    const inside = new Uint8Array(height * width), weights = new Float64Array(height * width);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        inside[y * width + x] = keeps(frequency(x, width) * scaleX, frequency(y, height) * scaleY, band);
      }
    }
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const mirror = ((height - y) % height) * width + (width - x) % width;
        weights[y * width + x] = (inside[y * width + x] + inside[mirror]) / 2;
      }
    }
    return weights;
  }

  // The largest distance that any bin has: above it, the low band is the whole image.
  function farthest(height, width, band) {
    const scaled = band.unit === "cycles";
    return distance(scaled ? 0.5 : width >> 1, scaled ? 0.5 : height >> 1, band);
  }

  // Filter real channels, two at a time: as the mask is symmetric, one is the real part and one the imaginary part.
  function lowPass(spectra, weights, height, width) {
    const size = height * width, filtered = [];
    for (let c = 0; c < spectra.length; c += 2) {
      const a = spectra[c], b = spectra[c + 1], re = new Float64Array(size), im = new Float64Array(size);
      for (let k = 0; k < size; k++) {
        re[k] = weights[k] * (a.re[k] - (b ? b.im[k] : 0));
        im[k] = weights[k] * (a.im[k] + (b ? b.re[k] : 0));
      }
      transform(im, re, height, width);  // the inverse is the transform with both parts swapped
      filtered.push(re.map((value) => value / size));
      if (b) filtered.push(im.map((value) => value / size));
    }
    return filtered;
  }

  return { forward, mask, lowPass, farthest, frequency };
})();
