// Figures: each kind has one Vega-Lite specification and a function that selects its data.
const ink = "currentColor";  // the page's text colour: no redraw for the light, dark or print style
const narrow = innerWidth < 600;
const labels = {labelColor: ink, titleColor: ink, titleFontWeight: 500, labelFontSize: 12, titleFontSize: 12};
const theme = {
  background: "transparent", font: "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", view: {stroke: null},
  range: {category: settings.colours},
  axis: {...labels, titlePadding: 10, gridColor: ink, domainColor: ink, tickColor: ink, gridOpacity: .12, domainOpacity: .4, tickOpacity: .4},
  legend: {...labels, symbolStrokeColor: ink, orient: "bottom", columns: narrow ? 2 : 4, offset: 12},
};
const LINE_KEY = {symbolType: "stroke", symbolFillColor: "transparent", symbolStrokeWidth: 2.5};
const NAMED = 16;  // if there are more points or curves, only tooltips name them
const NUMBERED = 24;  // a matrix with more columns has no numbers in its cells

const state = {};
const correlation = (measure = state.measure) => find("statistics", {model: state.model, method: state.method, outcome: state.outcome}).find(row => row.measure === measure);
const inOrder = (names, order) => [...new Set(names)].sort((a, b) => (order.indexOf(a) + 1 || 1e9) - (order.indexOf(b) + 1 || 1e9));
const rowsHeight = (count, height, minimum) => Math.max(count * height, minimum);

// Headings of a figure's numbers; a figure may name others.
const HEADINGS = {
  n: "images", rho: "Spearman’s ρ", low: "95% interval from", high: "to", p: "permutation p", p_holm: "p (Holm)",
  change: "change on other tasks", change_low: "95% interval from", change_high: "to", gain_low: "95% interval from", gain_high: "to",
  front_share: "share of resamples with it on the front", wise_ft: "weight of the fine-tuned model", zero_shot: "zero-shot",
  run: "model, method", cell: "comparison", of: "images of the class", color: "learning rate", relative: "deviation",
};
const NOTHING = "No data for this selection.";

function describeCorrelation(row) {
  if (!row) return "There are no statistics for this selection.";
  if (!known(row.spearman)) return `${row.note || "No correlation"}.`;
  const interval = known(row.spearman_low) ? ` (95% interval ${shown(row.spearman_low)} to ${shown(row.spearman_high)})` : "";
  const corrected = known(row.p_holm) ? ` (${shown(row.p_holm, "plain")} after Holm’s correction)` : "";
  const verdict = row.p_holm < .05 ? "A correlation is shown" : "No correlation is shown";
  const hinge = known(row.aicc_difference) && row.aicc_difference <= -2 ? ` A hinge that is flat above ${shown(row.hinge_threshold)} fits better than the line.` : "";
  return `${verdict}: Spearman’s ρ = ${shown(row.spearman)}${interval}, permutation p = ${shown(row.p_permutation, "plain")}${corrected}, R² = ${shown(row.r2)}, n = ${row.n}.${hinge}${row.note ? ` Note: ${row.note}.` : ""}`;
}

function scatter() {
  const {model, method, measure, outcome} = state;
  const values = new Map(find("measures", {model}).map(row => [row.dataset, row[measure]]));
  const points = find("tasks", {model, method}).map(row => ({dataset: row.dataset, x: values.get(row.dataset), y: row[outcome]}))
    .filter(point => known(point.x) && known(point.y));
  const row = correlation(), fit = [];
  if (points.length && known(row?.slope)) {
    const xs = points.map(point => point.x), low = Math.min(...xs), high = Math.max(...xs), t = settings.t[row.n];
    for (let i = 0; i <= 40; i++) {
      const x = low + i / 40 * (high - low), y = row.intercept + row.slope * x;
      const half = t * row.residual_sd * Math.sqrt(1 / row.n + (x - row.x_mean) ** 2 / row.x_squares);
      fit.push({x, y, low: known(half) && isFinite(half) ? y - half : y, high: known(half) && isFinite(half) ? y + half : y});
    }
  }
  for (const point of points) point.named = points.length <= NAMED && !narrow;
  return {
    data: {points, fit}, places: {measure, outcome: settings.outcomes[outcome]}, headings: {x: measure, y: settings.outcomes[outcome]},
    label: `${settings.outcomes[outcome]} against ${measure}, ${model}, ${method}`,
    note: points.length ? describeCorrelation(row) : NOTHING,
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
    data: {measures}, places: {rho: `Spearman’s ρ with ${settings.outcomes[outcome]}`, rows: measures.map(row => row.measure)},
    height: rowsHeight(measures.length, 19, 60),
    label: `Spearman’s ρ of every measure with ${settings.outcomes[outcome]}, ${model}, ${method}`,
    note: measures.length ? `The correlation is shown for ${count || "none"} of ${measures.length} measure${measures.length === 1 ? "" : "s"}.` : NOTHING,
  };
}

function matrix() {
  const {model, method} = state, {zero_shot: base, titles} = settings;
  const tests = new Map(rowsOf("tests").map(row => [row.test, row]));
  const zero = new Map(find("outcomes", {model, method: "zero_shot"}).map(row => [row.test, row.accuracy]));
  const tested = [...[...zero].map(([test, accuracy]) => ({trained_on: base, test, accuracy})), ...find("outcomes", {model, method})];
  const columns = inOrder(tested.map(row => row.test), titles), rows = inOrder(tested.map(row => row.trained_on), [base, ...settings.order]);
  const accuracies = new Map(tested.map(row => [row.trained_on + "\0" + row.test, row.accuracy]));
  const numbered = columns.length <= NUMBERED;
  const cells = rows.flatMap(y => columns.map(x => {
    const value = accuracies.get(y + "\0" + x) ?? null, {n, chance} = tests.get(x);
    return {x, y, value, zero_shot: zero.get(x), change: known(value) ? value - zero.get(x) : null, n, chance, own: x === y,
      shown: numbered || !known(value) ? shown(value, "percent").replace("%", "") : ""};
  }));
  return {
    data: {cells}, places: {columns, rows}, height: rowsHeight(rows.length, numbered ? 32 : 22, 90),
    minWidth: 260 + (numbered ? 36 : 22) * columns.length, label: `Accuracy in %, trained on × evaluated on, ${model}, ${method}`,
    headings: {x: "evaluated on", y: "trained on", value: "accuracy", n: "test images"},
  };
}

function tradeOff() {
  const GAIN = "gain_over_zero_shot_error", CHANGE = "ood_change";
  const means = find("front", {model: state.model}).map(row => ({
    method: row.method, wise_ft: row.wise_ft, gain: row[GAIN], gain_low: row[`${GAIN}_low`], gain_high: row[`${GAIN}_high`],
    change: row[CHANGE], change_low: row[`${CHANGE}_low`], change_high: row[`${CHANGE}_high`], front_share: row.front_share,
    on_front: row.on_front, spans: known(row.front_share) && row.wise_ft > 0 && (row.on_front || row.wise_ft === 1),
  }));
  const mixed = new Set(means.filter(row => row.wise_ft > 0 && row.wise_ft < 1).map(row => row.method));
  const curves = means.filter(row => mixed.has(row.method));
  for (const method of mixed) curves.push({method, wise_ft: 0, gain: 0, change: 0});
  return {
    data: {means, curves}, places: {methods: settings.methods}, label: `Gain against forgetting, ${state.model}`,
    note: settings.fronts[state.model] ?? NOTHING,
  };
}

function shots() {
  const {model, outcome} = state, label = row => known(row.shots) ? String(row.shots) : "all";
  const rows = find("seeds", {model, dataset: null}).filter(row => row.wise_ft === 1 && known(row[outcome])).map(row => ({
    method: row.method.replace(/_\d+shot$/, ""), shots: label(row), mean: row[outcome],
    low: row[`${outcome}_low`], high: row[`${outcome}_high`], seeds: row.seeds,
  }));
  const order = [...new Set(rows.map(row => row.shots))].sort((a, b) => (a === "all") - (b === "all") || a - b);
  return {
    data: {shots: rows}, places: {shots: order, methods: [...new Set(rows.map(row => row.method))], outcome: `mean ${settings.outcomes[outcome]}`},
    label: `Mean ${settings.outcomes[outcome]} by training images per class, ${model}`, headings: {shots: "images per class"},
    note: rows.length ? `Model: ${model}.` : NOTHING,
  };
}

function epochs() {
  const {model, method, dataset} = state, trials = find("trials", {model, method, dataset});
  const text = value => shown(value, "plain"), values = name => [...new Set(trials.map(row => row[name]))].filter(known).sort((a, b) => a - b).map(text);
  const [colors, dashes] = [values("rate"), values("varied")], name = (trials[0]?.name ?? "").replaceAll("_", " ");
  const points = trials.flatMap(row => row.epoch.map((epoch, i) => ({
    trial: row.trial, epoch, accuracy: row.accuracy[i], color: text(row.rate), dash: text(row.varied), best: epoch === row.best,
  })));
  const omitted = trials[0]?.left_out;
  return {
    data: {epochs: points}, places: {colors, dashes, dash: name, color_legend: colors.length > 1 ? LINE_KEY : null, dash_legend: dashes.length > 1 ? LINE_KEY : null},
    label: `Validation accuracy by epoch, ${model}, ${method}, ${dataset}`, headings: {dash: name},
    note: !points.length ? NOTHING : omitted ? `The figure omits ${omitted} trial${omitted === 1 ? "" : "s"} with lower validation accuracy.` : "",
  };
}

function convergence() {
  const {model, measure} = state, curves = find("curves", {model, measure}), names = new Set(curves.map(row => row.dataset));
  return {
    data: {curves}, places: {deviation: `deviation of ${measure}`, datasets: inOrder(names, settings.order), legend: names.size <= NAMED ? LINE_KEY : null},
    label: `Deviation of ${measure} against the number of images, ${model}`, note: settings.enough[model]?.[measure] ?? NOTHING,
  };
}

function evidence(arg) {
  const rows = find("evidence", {finding: parseInt(arg), part: arg.replace(/\d+/, "")}).filter(row => known(row.estimate))
    .map(row => ({...row, cell: `${row.model}: ${row.cell.replace("gain_over_zero_shot_error", "gain").replace("ood_change", "change on other tasks")}`}));
  return {
    data: {evidence: rows}, places: {rows: rows.map(row => row.cell), legend: {}}, height: rowsHeight(rows.length, 20, 40),
    minWidth: 560, label: `Evidence for finding ${arg}`, headings: {n: "n"},
  };
}

function task(arg) {
  const dataset = settings.titles[arg];
  const accuracies = find("own", {test: dataset})
    .map(row => ({model: row.model, method: row.method, accuracy: row.accuracy, zero_shot: row.method === "zero_shot"}));
  const models = inOrder(accuracies.map(row => row.model), settings.models);
  return {
    data: {accuracies, chance: [{accuracy: find("tests", {test: dataset})[0]?.chance ?? null}]}, places: {models, methods: settings.methods},
    height: rowsHeight(models.length, 34, 50), label: `Test accuracy on ${dataset} by model and method`,
    note: accuracies.length ? "" : NOTHING,
  };
}

function confusion(arg) {
  const [index, which] = arg.split("-"), test = settings.titles[index], method = which === "zero" ? "zero_shot" : state.method;
  const pairs = find("confusions", {model: state.model, method, test}), byPair = new Map(pairs.map(row => [row.class + "\0" + row.predicted, row]));
  const names = [...new Set([...pairs.map(row => row.class), ...pairs.map(row => row.predicted)])], totals = new Map(pairs.map(row => [row.class, row.class_n]));
  const rows = names.filter(name => totals.has(name));
  const cells = rows.flatMap(y => names.map(x => {
    const n = byPair.get(y + "\0" + x)?.n ?? 0, of = totals.get(y), value = n / of;
    return {x, y, n, of, value, own: x === y, shown: n ? String(n) : ""};
  }));
  const mistakes = pairs.filter(row => row.class !== row.predicted).sort((a, b) => b.n - a.n).slice(0, 3);
  const run = which === "zero" ? `${state.model}, zero-shot` : `${state.model}, ${method}`;
  return {
    data: {cells}, places: {columns: names, rows}, height: rowsHeight(rows.length, 30, 30), minWidth: 110 + Math.min(130, 7 * Math.max(0, ...names.map(name => name.length))) + 36 * names.length,
    label: `Images of the most confused classes of ${test} by predicted class, ${run}`, headings: {x: "predicted class", y: "class", value: "share"},
    caption: `Images of the most confused classes by predicted class, ${run}. The colour is the share of the class’s images.`,
    note: pairs.length ? `Most frequent errors: ${mistakes.map(row => `${row.class} predicted as ${row.predicted} (${row.n} of ${row.class_n})`).join("; ")}.`
      : find("own", {model: state.model, method, test}).some(row => row.accuracy === 1) ? "Every image was classified correctly." : NOTHING,
  };
}

function expected(arg) {
  const {outcome} = state, dataset = [...new Set(rowsOf("rankings").map(row => row.dataset))][arg];
  const ranks = new Map(rowsOf("rankings").filter(row => row.dataset === dataset).map((row, i) => [`${row.model}, ${row.method}`, i]));
  const forecasts = find("forecasts", {dataset, outcome}).filter(row => known(row.expected))
    .map(row => ({...row, run: `${row.model}, ${row.method}`})).sort((a, b) => ranks.get(a.run) - ranks.get(b.run));
  return {
    data: {forecasts}, places: {rows: forecasts.map(row => row.run), expected: `expected ${settings.outcomes[outcome]}`, format: outcome === "gain_over_zero_shot_error" ? "~g" : "~%"},
    height: rowsHeight(forecasts.length, 22, 40), label: `Expected ${settings.outcomes[outcome]} of ${dataset} by model and method`,
    note: forecasts.length ? "" : NOTHING,
  };
}

// Kind -> the function that selects its data, the lists that it depends on, and the tables that it reads.
const KINDS = {
  scatter: [scatter, ["model", "method", "measure", "outcome"], ["measures", "tasks", "statistics"]],
  ranking: [ranking, ["model", "method", "measure", "outcome"], ["statistics"]],
  matrix: [matrix, ["model", "method"], ["tests", "outcomes"]], shots: [shots, ["model", "outcome"], ["seeds"]], trade_off: [tradeOff, ["model"], ["front"]],
  epochs: [epochs, ["model", "method", "dataset"], ["trials"]], convergence: [convergence, ["model", "measure"], ["curves"]],
  evidence: [evidence, [], ["evidence"]], task: [task, [], ["own", "tests"]],
  confusion: [confusion, ["model", "method"], ["confusions", "own"]], expected: [expected, ["outcome"], ["rankings", "forecasts"]],
};

// Returns a copy of a specification in which each string "$name" is replaced by places.name.
function fillPlaces(part, places) {
  if (typeof part === "string") return part.startsWith("$") ? places[part.slice(1)] : part;
  if (Array.isArray(part)) return part.map(item => fillPlaces(item, places));
  if (part === null || typeof part !== "object") return part;
  return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, fillPlaces(value, places)]));
}

async function drawFigure(figure) {
  const {kind, arg} = figure.dataset, chart = figure.querySelector(".chart"), caption = figure.querySelector("figcaption");
  const turn = figure.turn = (figure.turn ?? 0) + 1;
  try {
    const [select, , tables] = KINDS[kind];
    await Promise.all(tables.map(table => load(partOf(table))));
    if (turn !== figure.turn) return;
    const {data, places, height, minWidth = 0, label, headings, note = "", caption: text} = select(arg);
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
    addDataButton(figure, label, points, headings);
    figure.view?.finalize();
    if (!points.length) { chart.replaceChildren(); chart.style.minHeight = "0"; figure.view = null; return; }
    // Log level 1 (errors only): Vega warns of a figure that has a layer without data.
    const embed = await vegaEmbed(chart, spec, {mode: "vega-lite", renderer: "svg", actions: false, config: theme, logLevel: 1});
    if (turn !== figure.turn) return embed.finalize();
    figure.view = embed;
    // Screen readers get one image with a name; they read its numbers from the table, not from its marks.
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

// Adds the button that shows a figure's numbers as a table, for readers who cannot see the figure.
function addDataButton(figure, label, points, headings = {}) {
  figure.querySelector(".data")?.remove();
  const caption = figure.querySelector("figcaption");
  caption.querySelector("button")?.remove();
  if (!points.length) return;
  const button = element("button", {type: "button", class: "plain", "aria-expanded": "false", "aria-label": `Show the numbers: ${label}`, onclick: () => {
    const open = figure.querySelector(".data");
    button.setAttribute("aria-expanded", String(!open));
    if (open) return open.remove();
    // Booleans and `shown`, a number as text, only control the drawing.
    const keys = Object.keys(points[0]).filter(key => key !== "shown" && !points.some(row => typeof row[key] === "boolean"));
    const columns = keys.map(key => ({key, label: headings[key] ?? HEADINGS[key] ?? key.replaceAll("_", " "), beside: [], kind: points.some(row => typeof row[key] === "string") ? "text" : "plain"}));
    const host = element("div", {class: "data"});
    figure.append(host);
    drawTable(host, `${figure.id}-numbers`, label, columns, points);
  }}, "Numbers");
  caption.querySelector(".note").before(button);
}
