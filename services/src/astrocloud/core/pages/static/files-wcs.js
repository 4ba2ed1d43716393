// World coordinates of an image (Calabretta & Greisen 2002): zenithal projections and the plate carrée, enough to draw a
// grid over a preview. Distortions (SIP, TPV) are left out: on a preview they are smaller than a line is wide.

const RAD = Math.PI / 180;
const ZENITHAL = new Set(["TAN", "SIN", "ARC", "ZEA", "STG"]);

/** Return `{toPixel(lon, lat), toSky(x, y), names, hours}` in degrees and FITS pixels (the first is 1), or null. */
export function worldOf(header) {
  const value = (name, otherwise) => (typeof header.get(name) === "number" ? header.get(name) : otherwise);
  const types = [1, 2].map((axis) => String(header.get(`CTYPE${axis}`) ?? ""));
  const lon = types.findIndex((type) => /^(RA--|.LON|..LN)/.test(type));
  const lat = types.findIndex((type) => /^(DEC-|.LAT|..LT)/.test(type));
  if (lon < 0 || lat < 0 || lon === lat) return null;
  const code = types[lon].slice(5, 8);
  if (types[lat].slice(5, 8) !== code || !(ZENITHAL.has(code) || code === "CAR")) return null;
  const matrix = linear(header, value);
  const det = matrix[0][0] * matrix[1][1] - matrix[0][1] * matrix[1][0];
  if (!Number.isFinite(det) || det === 0) return null;
  const crpix = [value("CRPIX1", 0), value("CRPIX2", 0)];
  const crval = [value(`CRVAL${lon + 1}`, 0), value(`CRVAL${lat + 1}`, 0)];
  const pole = value("LONPOLE", ZENITHAL.has(code) ? (crval[1] >= 90 ? 0 : 180) : (crval[1] >= 0 ? 0 : 180));

  const toPixel = (alpha, delta) => {
    const plane = code === "CAR" ? [wrapped(alpha - crval[0]), delta - crval[1]] : zenithal(code, alpha, delta, crval, pole);
    if (!plane) return null;
    const world = lon === 0 ? plane : [plane[1], plane[0]];
    return [
      crpix[0] + (matrix[1][1] * world[0] - matrix[0][1] * world[1]) / det,
      crpix[1] + (matrix[0][0] * world[1] - matrix[1][0] * world[0]) / det,
    ];
  };
  const toSky = (x, y) => {
    const offset = [x - crpix[0], y - crpix[1]];
    const world = [0, 1].map((row) => matrix[row][0] * offset[0] + matrix[row][1] * offset[1]);
    const plane = lon === 0 ? world : [world[1], world[0]];
    if (code === "CAR") return [positive(crval[0] + plane[0]), crval[1] + plane[1]];
    return unzenithal(code, plane[0], plane[1], crval, pole);
  };
  const equatorial = types[lon].startsWith("RA");
  return { toPixel, toSky, hours: equatorial, frame: equatorial ? String(header.get("RADESYS") ?? header.get("RADECSYS") ?? "") : types[lon].slice(0, 4) };
}

function linear(header, value) {
  if ([...header.keys()].some((name) => /^CD[12]_[12]$/.test(name))) {
    return [[value("CD1_1", 0), value("CD1_2", 0)], [value("CD2_1", 0), value("CD2_2", 0)]];
  }
  const scale = [value("CDELT1", 1), value("CDELT2", 1)];
  if ([...header.keys()].some((name) => /^PC[12]_[12]$/.test(name))) {
    const pc = [[value("PC1_1", 1), value("PC1_2", 0)], [value("PC2_1", 0), value("PC2_2", 1)]];
    return pc.map((row, index) => row.map((each) => each * scale[index]));
  }
  const turn = value("CROTA2", 0) * RAD;
  return [[scale[0] * Math.cos(turn), -scale[1] * Math.sin(turn)], [scale[0] * Math.sin(turn), scale[1] * Math.cos(turn)]];
}

const wrapped = (angle) => ((angle + 540) % 360 + 360) % 360 - 180;
const positive = (angle) => (angle % 360 + 360) % 360;

function zenithal(code, alpha, delta, crval, pole) {
  const [a, d, d0] = [(alpha - crval[0]) * RAD, delta * RAD, crval[1] * RAD];
  const sine = Math.sin(d) * Math.sin(d0) + Math.cos(d) * Math.cos(d0) * Math.cos(a);
  const theta = Math.asin(Math.max(-1, Math.min(1, sine)));
  const phi = pole * RAD + Math.atan2(-Math.cos(d) * Math.sin(a), Math.sin(d) * Math.cos(d0) - Math.cos(d) * Math.sin(d0) * Math.cos(a));
  if (theta <= 0 && (code === "TAN" || code === "SIN")) return null;  // behind the tangent plane
  const radius = {
    TAN: () => 1 / Math.tan(theta), SIN: () => Math.cos(theta), ARC: () => Math.PI / 2 - theta,
    ZEA: () => Math.sqrt(2 * (1 - Math.sin(theta))), STG: () => 2 * Math.cos(theta) / (1 + Math.sin(theta)),
  }[code]() / RAD;
  return [radius * Math.sin(phi), -radius * Math.cos(phi)];
}

function unzenithal(code, x, y, crval, pole) {
  const radius = Math.hypot(x, y) * RAD;
  const theta = {
    TAN: () => Math.atan2(1, radius), SIN: () => Math.acos(Math.min(1, radius)), ARC: () => Math.PI / 2 - radius,
    ZEA: () => Math.PI / 2 - 2 * Math.asin(Math.min(1, radius / 2)), STG: () => Math.PI / 2 - 2 * Math.atan(radius / 2),
  }[code]();
  const phi = (radius ? Math.atan2(x, -y) : 0) - pole * RAD;
  const d0 = crval[1] * RAD;
  const delta = Math.asin(Math.max(-1, Math.min(1, Math.sin(theta) * Math.sin(d0) + Math.cos(theta) * Math.cos(d0) * Math.cos(phi))));
  const alpha = Math.atan2(-Math.cos(theta) * Math.sin(phi), Math.sin(theta) * Math.cos(d0) - Math.cos(theta) * Math.sin(d0) * Math.cos(phi));
  return [positive(crval[0] + alpha / RAD), delta / RAD];
}

// ---- A grid ----------------------------------------------------------------------------------------------------------

const STEPS = [30, 15, 10, 5, 2, 1, 1 / 2, 1 / 4, 1 / 6, 1 / 12, 1 / 30, 1 / 60, 1 / 120, 1 / 240, 1 / 360, 1 / 720, 1 / 1800, 1 / 3600, 1 / 7200];
const HOURS = [30, 15, 7.5, 5, 2.5, 1.25, 0.5, 0.25, 0.125, 1 / 12, 1 / 24, 1 / 48, 1 / 80, 1 / 120, 1 / 240, 1 / 480, 1 / 1200];

/** Return the lines of a grid over an image: `{points, label, at, of}`; points in FITS pixels. */
export function gridOf(world, width, height) {
  const seen = [];
  for (let i = 0; i <= 16; i += 1) for (let j = 0; j <= 16; j += 1) seen.push(world.toSky(0.5 + width * i / 16, 0.5 + height * j / 16));
  if (seen.some(([lon, lat]) => !Number.isFinite(lon) || !Number.isFinite(lat))) return [];
  const centre = world.toSky(width / 2, height / 2)[0];
  const lons = seen.map(([lon]) => centre + wrapped(lon - centre));
  const lats = seen.map(([, lat]) => lat);
  const span = (all) => [Math.min(...all), Math.max(...all)];
  const [west, east] = span(lons);
  const [south, north] = span(lats);
  const choose = (steps, range) => steps.find((step) => range / step >= 3) ?? steps.at(-1);
  const lonStep = choose(world.hours ? HOURS : STEPS, east - west);
  const latStep = choose(STEPS, north - south);
  const lines = [];
  const many = 60;
  for (let lon = Math.ceil(west / lonStep) * lonStep, n = 0; lon <= east && n < many; lon += lonStep, n += 1) {
    lines.push({ of: "lon", label: world.hours ? sexagesimal(positive(lon) / 15, lonStep / 15, "hms") : sexagesimal(positive(lon), lonStep, "°′″"), points: sampled((s) => world.toPixel(lon, south + (north - south) * s)) });
  }
  for (let lat = Math.ceil(south / latStep) * latStep, n = 0; lat <= north && n < many; lat += latStep, n += 1) {
    lines.push({ of: "lat", label: sexagesimal(lat, latStep, "°′″"), points: sampled((s) => world.toPixel(west + (east - west) * s, lat)) });
  }
  return lines;
}

const sampled = (point) => Array.from({ length: 101 }, (_, index) => point(index / 100)).filter(Boolean);

/** Return `value` in units and sixtieths, as fine as `step` needs. */
export function sexagesimal(value, step, marks) {
  const sign = value < -1e-9 ? "−" : marks === "hms" ? "" : "+";
  const digits = step < 1 / 3600 ? 1 : 0;
  let rest = Math.round(Math.abs(value) * 3600 * 10 ** digits) / 10 ** digits;
  const units = Math.floor(rest / 3600);
  rest -= units * 3600;
  const minutes = Math.floor(rest / 60);
  const seconds = (rest - minutes * 60).toFixed(digits);
  let text = `${sign}${units}${marks[0]}`;
  if (step < 0.9999) text += `${String(minutes).padStart(2, "0")}${marks[1]}`;
  if (step < 1 / 60 - 1e-9) text += `${seconds.padStart(digits ? 4 : 2, "0")}${marks[2]}`;
  return text;
}
