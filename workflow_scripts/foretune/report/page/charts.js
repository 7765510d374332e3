// Figures: each kind has one specification; what it draws follows the lists' choices.
const ink = "currentColor";  // follows the page: light, dark and print need no second drawing
const narrow = innerWidth < 600;
const labels = {labelColor: ink, titleColor: ink, titleFontWeight: 500, labelFontSize: 12, titleFontSize: 12};
const theme = {
  background: "transparent", font: "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", view: {stroke: null},
  range: {category: setting.colours},
  axis: {...labels, titlePadding: 10, gridColor: ink, domainColor: ink, tickColor: ink, gridOpacity: .12, domainOpacity: .4, tickOpacity: .4},
  legend: {...labels, symbolStrokeColor: ink, orient: "bottom", columns: narrow ? 2 : 4, offset: 12},
};
const LINE_KEY = {symbolType: "stroke", symbolFillColor: "transparent", symbolStrokeWidth: 2.5};
const NAMED = 16;  // points beyond so many are named when hovered only
const NUMBERED = 24;  // columns of a matrix beyond so many have no numbers in their cells

const state = {};
const correlation = (measure = state.measure) => find("statistics", {model: state.model, method: state.method, outcome: state.outcome}).find(row => row.measure === measure);
const inOrder = (names, order) => [...new Set(names)].sort((a, b) => (order.indexOf(a) + 1 || 1e9) - (order.indexOf(b) + 1 || 1e9));
const rowHeight = (count, each, rest = 0, least = 0) => Math.max(count * each + rest, least);

function said(row) {
  if (!row) return "No statistics for this pair.";
  if (!known(row.spearman)) return `${row.note || "No correlation"}.`;
  const span = known(row.spearman_low) ? ` (95% interval ${shown(row.spearman_low)} to ${shown(row.spearman_high)})` : "";
  const p = known(row.p_holm) ? `, ${shown(row.p_holm, "plain")} after correction` : "";
  const verdict = row.p_holm < .05 ? "A correlation is shown" : "No correlation is shown";
  const bent = known(row.aic_difference) && row.aic_difference <= -2 ? ` A line that is flat above ${shown(row.hinge_threshold)} fits better.` : "";
  return `${verdict}: Spearman’s ρ = ${shown(row.spearman)}${span}, permutation p = ${shown(row.p_permutation, "plain")}${p}, R² = ${shown(row.r2)}, n = ${row.n}.${bent}${row.note ? ` Note: ${row.note}.` : ""}`;
}

function scatter() {
  const {model, method, measure, outcome} = state;
  const values = new Map(find("measures", {model}).map(row => [row.dataset, row[measure]]));
  const points = find("tasks", {model, method}).map(row => ({dataset: row.dataset, x: values.get(row.dataset), y: row[outcome]}))
    .filter(point => known(point.x) && known(point.y));
  const row = correlation(), fit = [];
  if (points.length && known(row?.slope)) {
    const xs = points.map(point => point.x), low = Math.min(...xs), high = Math.max(...xs), t = setting.t[row.n];
    for (let i = 0; i <= 40; i++) {
      const x = low + i / 40 * (high - low), y = row.intercept + row.slope * x;
      const half = t * row.residual_sd * Math.sqrt(1 / row.n + (x - row.x_mean) ** 2 / row.x_squares);
      fit.push({x, y, low: known(half) && isFinite(half) ? y - half : y, high: known(half) && isFinite(half) ? y + half : y});
    }
  }
  for (const point of points) point.named = points.length <= NAMED && !narrow;
  return {
    data: {points, fit}, places: {measure, outcome: setting.outcomes[outcome]},
    label: `${setting.outcomes[outcome]} against ${measure}, ${model}, ${method}`,
    note: points.length ? said(row) : "Nothing to show.",
  };
}

function ranking() {
  const {model, method, outcome} = state;
  const measures = find("statistics", {model, method, outcome}).filter(row => known(row.spearman)).map(row => ({
    measure: row.measure, rho: row.spearman, low: row.spearman_low, high: row.spearman_high, p: row.p_permutation,
    p_holm: row.p_holm, shown: row.p_holm < .05, chosen: row.measure === state.measure,
  })).sort((a, b) => Math.abs(b.rho) - Math.abs(a.rho));
  const count = measures.filter(row => row.shown).length;
  return {
    data: {measures}, places: {rho: `Spearman’s ρ with ${setting.outcomes[outcome]}`, rows: measures.map(row => row.measure)},
    height: rowHeight(measures.length, 19, 0, 60),
    label: `Spearman’s ρ of every measure with ${setting.outcomes[outcome]}, ${model}, ${method}`,
    note: measures.length ? `${count || "None"} of ${measures.length} measures ${count === 1 ? "is" : "are"} shown to go with it.` : "Nothing to show.",
  };
}

function matrix() {
  const {model, method} = state, {zero_shot: base, titles} = setting;
  const tests = new Map(rowsOf("tests").map(row => [row.test, row]));
  const zero = new Map(find("outcomes", {model, method: "zero_shot"}).map(row => [row.test, row.accuracy]));
  const tested = [...[...zero].map(([test, accuracy]) => ({trained_on: base, test, accuracy})), ...find("outcomes", {model, method})];
  const columns = inOrder(tested.map(row => row.test), titles), rows = inOrder(tested.map(row => row.trained_on), [base, ...setting.order]);
  const found = new Map(tested.map(row => [row.trained_on + "\0" + row.test, row.accuracy]));
  const numbered = columns.length <= NUMBERED;
  const cells = rows.flatMap(y => columns.map(x => {
    const value = found.get(y + "\0" + x) ?? null, {n, chance} = tests.get(x);
    return {x, y, value, zero_shot: zero.get(x), change: known(value) ? value - zero.get(x) : null, n, chance, own: x === y,
      shown: numbered || !known(value) ? shown(value, "percent").replace("%", "") : ""};
  }));
  return {
    data: {cells}, places: {columns, rows}, height: rowHeight(rows.length, numbered ? 32 : 22, 0, 90),
    minWidth: 260 + (numbered ? 36 : 22) * columns.length, label: `Accuracy in %, trained on × evaluated on, ${model}, ${method}`,
  };
}

function tradeOff() {
  const means = find("trade", {model: state.model});
  return {
    data: {means}, places: {methods: setting.methods}, label: `Gain against forgetting, ${state.model}`,
    note: means.length ? `${state.model}.` : "Nothing to show.",
  };
}

function epochs() {
  const {model, method, dataset} = state, trials = find("trials", {model, method, dataset});
  const text = value => shown(value, "plain"), values = name => [...new Set(trials.map(row => row[name]))].filter(known).sort((a, b) => a - b).map(text);
  const [colors, dashes] = [values("rate"), values("varied")], name = (trials[0]?.name ?? "").replaceAll("_", " ");
  const points = trials.flatMap(row => row.epoch.map((epoch, i) => ({
    trial: row.trial, epoch, accuracy: row.accuracy[i], color: text(row.rate), dash: text(row.varied), best: epoch === row.best,
  })));
  const out = trials[0]?.left_out;
  return {
    data: {epochs: points}, places: {colors, dashes, dash: name, color_legend: colors.length > 1 ? LINE_KEY : null, dash_legend: dashes.length > 1 ? LINE_KEY : null},
    label: `Validation accuracy per epoch, ${model}, ${method}, ${dataset}`,
    note: !points.length ? "Nothing to show." : out ? `${out} trial${out === 1 ? " that is" : "s that are"} worse ${out === 1 ? "is" : "are"} left out.` : "",
  };
}

function convergence() {
  const {model, measure} = state, curves = find("curves", {model, measure}), names = new Set(curves.map(row => row.dataset));
  return {
    data: {curves}, places: {deviation: `deviation of ${measure}`, datasets: inOrder(names, setting.order), legend: names.size <= NAMED ? LINE_KEY : null},
    label: `Deviation of ${measure} against the number of images, ${model}`, note: setting.enough[model]?.[measure] ?? "Nothing to show.",
  };
}

function evidence(arg) {
  const rows = find("evidence", {finding: parseInt(arg), part: arg.replace(/\d+/, "")}).filter(row => known(row.estimate))
    .map(row => ({...row, cell: `${row.model}: ${row.cell.replace("gain_over_zero_shot_error", "gain")}`}));
  return {
    data: {evidence: rows}, places: {rows: rows.map(row => row.cell), legend: {}}, height: rowHeight(rows.length, 20, 0, 40),
    minWidth: 560, label: `Evidence for finding ${arg}`,
  };
}

function task(arg) {
  const dataset = setting.titles[arg];
  const accuracies = rowsOf("outcomes").filter(row => row.test === dataset && (row.method === "zero_shot" || dataset === row.trained_on || dataset.startsWith(`${row.trained_on} · `)))
    .map(row => ({model: row.model, method: row.method, accuracy: row.accuracy, zero_shot: row.method === "zero_shot"}));
  const models = inOrder(accuracies.map(row => row.model), setting.models);
  return {
    data: {accuracies, chance: [{accuracy: find("tests", {test: dataset})[0]?.chance ?? null}]}, places: {models, methods: setting.methods},
    height: rowHeight(models.length, 34, 0, 50), label: `Test accuracy on ${dataset} by model and method`,
    note: accuracies.length ? "" : "Nothing to show.",
  };
}

function confusion(arg) {
  const [index, which] = arg.split("-"), test = setting.titles[index], method = which === "zero" ? "zero_shot" : state.method;
  const pairs = find("confusions", {model: state.model, method, test}), found = new Map(pairs.map(row => [row.class + "\0" + row.predicted, row]));
  const names = [...new Set([...pairs.map(row => row.class), ...pairs.map(row => row.predicted)])], totals = new Map(pairs.map(row => [row.class, row.class_n]));
  const rows = names.filter(name => totals.has(name));
  const cells = rows.flatMap(y => names.map(x => {
    const n = found.get(y + "\0" + x)?.n ?? 0, of = totals.get(y), value = n / of;
    return {x, y, n, of, value, own: x === y, shown: n ? String(n) : ""};
  }));
  const wrong = pairs.filter(row => row.class !== row.predicted).sort((a, b) => b.n - a.n).slice(0, 3);
  const run = which === "zero" ? `${state.model}, zero-shot` : `${state.model}, ${method}`;
  return {
    data: {cells}, places: {columns: names, rows}, height: rowHeight(rows.length, 30, 0, 30), minWidth: 110 + Math.min(130, 7 * Math.max(0, ...names.map(name => name.length))) + 36 * names.length,
    label: `Images of the most confused classes of ${test}, class × predicted, ${run}`, caption: `${run}: images of the most confused classes, coloured by their share of the class.`,
    note: pairs.length ? `Most often: ${wrong.map(row => `${row.class} taken for ${row.predicted} (${row.n} of ${row.class_n})`).join("; ")}.`
      : find("outcomes", {model: state.model, method, test}).length ? "No image was taken for another class." : "Nothing to show.",
  };
}

function expected(arg) {
  const {outcome} = state, dataset = [...new Set(rowsOf("rankings").map(row => row.dataset))][arg];
  const ranks = new Map(rowsOf("rankings").filter(row => row.dataset === dataset).map((row, i) => [`${row.model}, ${row.method}`, i]));
  const forecasts = find("forecasts", {dataset, outcome}).filter(row => known(row.expected))
    .map(row => ({...row, run: `${row.model}, ${row.method}`})).sort((a, b) => ranks.get(a.run) - ranks.get(b.run));
  return {
    data: {forecasts}, places: {rows: forecasts.map(row => row.run), expected: `expected ${setting.outcomes[outcome]}`},
    height: rowHeight(forecasts.length, 22, 0, 40), label: `Expected ${setting.outcomes[outcome]} of ${dataset} by model and method`,
    note: forecasts.length ? "" : "Nothing to show.",
  };
}

// Kind -> what makes it, and the lists that it follows.
const KINDS = {
  scatter: [scatter, ["model", "method", "measure", "outcome"]], ranking: [ranking, ["model", "method", "measure", "outcome"]],
  matrix: [matrix, ["model", "method"]], trade_off: [tradeOff, ["model"]], epochs: [epochs, ["model", "method", "dataset"]],
  convergence: [convergence, ["model", "measure"]], evidence: [evidence, []], task: [task, []],
  confusion: [confusion, ["model", "method"]], expected: [expected, ["outcome"]],
};

// A copy of a specification in which a string "$name" is replaced by the value of that name.
function fillPlaces(part, places) {
  if (typeof part === "string") return part.startsWith("$") ? places[part.slice(1)] : part;
  if (Array.isArray(part)) return part.map(each => fillPlaces(each, places));
  if (part === null || typeof part !== "object") return part;
  return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, fillPlaces(value, places)]));
}

async function drawFigure(figure) {
  const {kind, arg} = figure.dataset, chart = figure.querySelector(".chart"), caption = figure.querySelector("figcaption");
  const turn = figure.turn = (figure.turn ?? 0) + 1;
  try {
    const {data, places, height, minWidth = 0, label, note = "", caption: text} = KINDS[kind][0](arg);
    const spec = {...fillPlaces(read("specs")[kind], places), datasets: {...read("specs")[kind].datasets, ...data}, description: label};
    if (height) spec.height = height;
    if (["matrix", "confusion"].includes(kind)) spec.padding = {left: 5, top: 5, right: 50, bottom: 5};  // for slanted names
    chart.style.minWidth = `${minWidth}px`;
    const box = chart.parentNode;
    for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
    if (minWidth) for (const [name, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", label]]) box.setAttribute(name, value);
    const points = Object.values(data).find(rows => rows.length) ?? [];
    figure.querySelector(".note").textContent = note;
    if (text) caption.firstChild.textContent = `${text} `;
    addDataButton(figure, label, points);
    figure.view?.finalize();
    if (!points.length) { chart.replaceChildren(); chart.style.minHeight = "0"; figure.view = null; return; }
    // Log level 1, errors: a figure with nothing in a layer has an empty plot, which Vega warns of.
    const made = await vegaEmbed(chart, spec, {mode: "vega-lite", renderer: "svg", actions: false, config: theme, logLevel: 1});
    if (turn !== figure.turn) return made.finalize();
    figure.view = made;
    // One image with a name; its numbers are read from the table, not from hundreds of marks.
    for (const name of ["role", "aria-label", "aria-roledescription"]) chart.removeAttribute(name);
    const svg = chart.querySelector("svg");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
    for (const part of svg.children) part.setAttribute("aria-hidden", "true");
  } catch (error) {
    chart.textContent = `This figure could not be drawn: ${error.message}`;
    console.error(error);
  }
}

// A figure's numbers as a table, for those who cannot see it.
function addDataButton(figure, label, points) {
  figure.querySelector(".data")?.remove();
  const caption = figure.querySelector("figcaption");
  caption.querySelector("button")?.remove();
  if (!points.length) return;
  const button = element("button", {type: "button", class: "plain", "aria-expanded": "false", "aria-label": `Show the numbers: ${label}`, onclick: () => {
    const open = figure.querySelector(".data");
    button.setAttribute("aria-expanded", String(!open));
    if (open) return open.remove();
    const keys = Object.keys(points[0]).filter(key => !["named", "own", "shown", "chosen"].includes(key));
    const columns = keys.map(key => ({key, label: key.replaceAll("_", " "), beside: [], kind: points.some(row => typeof row[key] === "string") ? "text" : "plain"}));
    const host = element("div", {class: "data"});
    figure.append(host);
    drawTable(host, `${figure.id}-numbers`, label, columns, points);
  }}, "Numbers");
  caption.querySelector(".note").before(button);
}
