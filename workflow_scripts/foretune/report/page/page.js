// Connects the lists with the figures and draws everything, starting with what is visible.
const params = ["model", "method", "measure", "outcome", "dataset"];
for (const param of params) state[param] = document.querySelector(`select[data-param=${param}]`)?.value;

// Offers only those methods that the model was fine-tuned with.
function offerMethods() {
  const offered = settings.runs.filter(run => run[0] === state.model).map(run => run[1]);
  if (!offered.includes(state.method)) state.method = offered[0];
  for (const select of document.querySelectorAll("select[data-param=method]")) {
    select.replaceChildren(...offered.map(name => element("option", {value: name}, name)));
    select.value = state.method;
  }
}

const drawn = new Set();
async function draw(host) {
  if (drawn.has(host)) return;
  drawn.add(host);
  await (host.matches("figure") ? drawFigure : drawNamedTable)(host);
}
const visible = host => !host.closest("details:not([open])");
const hosts = [...document.querySelectorAll("figure[data-kind], [data-table]")];

async function choose(param, value) {
  const previous = {...state};
  state[param] = value;
  if (param === "model") offerMethods();
  for (const select of document.querySelectorAll(`select[data-param=${param}]`)) select.value = value;
  const changed = params.filter(name => state[name] !== previous[name]);
  for (const figure of hosts) {
    if (!figure.matches("figure") || !drawn.has(figure) || !KINDS[figure.dataset.kind][1].some(name => changed.includes(name))) continue;
    if (visible(figure)) await drawFigure(figure); else drawn.delete(figure);
  }
}
for (const select of document.querySelectorAll("select[data-param]")) select.addEventListener("change", () => choose(select.dataset.param, select.value));

for (const details of document.querySelectorAll("details")) {
  details.addEventListener("toggle", async () => {
    if (details.open) for (const host of hosts) if (details.contains(host)) await draw(host);
  });
}
// A link to a dataset opens its details.
function openTarget() {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (target && target.matches("details")) target.open = true;
}
addEventListener("hashchange", openTarget);
// Print all details open. Opening them draws the figures that were not drawn before.
addEventListener("beforeprint", () => { for (const details of document.querySelectorAll("details")) details.open = true; });

const idle = () => new Promise(done => (window.requestIdleCallback ?? setTimeout)(done, {timeout: 200}));
async function drawAll() {
  if (state.model) offerMethods();
  const near = host => host.getBoundingClientRect().top < 1.5 * innerHeight;
  for (const host of hosts) if (visible(host) && near(host)) await draw(host);
  document.documentElement.dataset.opened = Math.round(performance.now());
  for (const host of hosts) {
    if (!visible(host)) continue;
    await idle();
    await draw(host);
  }
  openTarget();
  document.documentElement.dataset.drawn = Math.round(performance.now());
}
drawAll();
