// Figures of the forecast page; `arg` is the number of the dataset.
function learning(arg) {
  const {dataset, run} = settings.forecasts[arg], rows = find("learning", {dataset});
  return {
    data: {learning: rows.map(({series, n, accuracy, low, high}) => ({series, n, accuracy, low, high}))},
    places: {series: inOrder(rows.map(row => row.series), []), legend: {...LINE_KEY, columns: narrow ? 1 : 2, labelLimit: 320}},
    label: `Accuracy by the number of training images, ${dataset}, ${run}`, note: rows.length ? "" : NOTHING,
  };
}

function place(arg) {
  const {dataset, run, predictor} = settings.forecasts[arg], tasks = find("places", {for: dataset});
  const named = tasks.length <= NAMED && !narrow;
  return {
    data: {tasks: tasks.map(({dataset, x, accuracy, low, high, forecast}) => ({dataset, x, accuracy, low, high, forecast, named: named || forecast}))},
    places: {x: predictor}, headings: {x: predictor},
    label: `Accuracy against ${predictor} over the study’s datasets and ${dataset}, ${run}`, note: tasks.length ? "" : NOTHING,
  };
}

Object.assign(KINDS, {learning: [learning, [], ["learning"]], place: [place, [], ["places"]]});
