"use strict";
// Draws the figures of the page. Everything that came from a run is data: it enters the document through
// textContent, and Plotly, which reads tags in what it writes, through plain().
(function () {
  const AXES = { step: "step", time: "time", tokens: "tokens" };
  const HEAT_DECADES = 10;
  const notice = document.getElementById("unsupported");
  if (!window.DecompressionStream || !window.IntersectionObserver) return;
  notice.hidden = true;

  const data = JSON.parse(document.getElementById("data").textContent);
  const state = { axis: "step", hidden: new Set(), logarithmic: data.panels.map((p) => p.logarithmic), print: false };
  const root = document.documentElement;
  const drawn = new Set();
  let arrays = null;

  // ------------------------------------------------------------------ data
  async function inflate(id) {
    const text = atob(document.getElementById(id).textContent);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  function numbers(reference) {
    const [at, count, kind] = reference;
    return kind === "f8" ? new Float64Array(arrays, at, count) : new Float32Array(arrays, at, count);
  }

  function plain(text) {
    return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }

  function shorten(text, most) {
    const kept = most - 1;
    return text.length <= most ? text : text.slice(0, Math.ceil(kept / 2)) + "…" + text.slice(-Math.floor(kept / 2));
  }

  // What all parameters are called at their end says nothing.
  function withoutEnding(layers) {
    const short = layers.map((layer) => layer.replace(/\.weight$/, ""));
    return new Set(short).size === layers.length ? short : layers;
  }

  function extent(lists) {
    let low = Infinity, high = -Infinity;
    for (const list of lists) for (const v of list) if (Number.isFinite(v)) { low = Math.min(low, v); high = Math.max(high, v); }
    return [low, high];
  }

  // Time is written in the unit that its longest line fills.
  function horizontal() {
    if (state.axis !== "time") return { divide: 1, title: AXES[state.axis] };
    const all = data.panels.flatMap((p) => p.traces).filter((t) => t.x.time);
    const longest = extent(all.map((t) => numbers(t.x.time)))[1];
    const [divide, unit] = longest > 172800 ? [86400, "days"] : longest > 7200 ? [3600, "hours"] : longest > 180 ? [60, "minutes"] : [1, "seconds"];
    return { divide, title: "time, " + unit };
  }

  // All figures share one range, so that what happened at one time stands at one place; a figure that would fill
  // less than half of it has its own.
  function range(traces, divide) {
    const lines = data.panels.flatMap((p) => (p.kind === "lines" ? p.traces : []));
    const seen = (some) => extent(some.filter((t) => t.x[state.axis] && !state.hidden.has(t.run)).map((t) => numbers(t.x[state.axis])));
    const own = seen(traces), all = seen(lines);
    const [first, last] = own[1] - own[0] > (all[1] - all[0]) / 2 ? all : own;
    const edge = (last - first) * 0.012;
    return last > first ? [(first - edge) / divide, (last + edge) / divide] : undefined;
  }

  function along(reference, divide) {
    const values = numbers(reference);
    return divide === 1 ? values : values.map((v) => v / divide);
  }

  // ------------------------------------------------------------------ look
  function isDark() {
    if (state.print) return false;
    const chosen = root.dataset.theme;
    return chosen ? chosen === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function color(index) {
    const colors = isDark() ? data.colors.dark : data.colors.light;
    return colors[index % colors.length];
  }

  function look() {
    const style = getComputedStyle(root);
    const read = (name) => style.getPropertyValue(name).trim();
    if (state.print) return { text: "#16202b", quiet: "#55616e", grid: "#e8ecf0", card: "#ffffff", line: "#d8dee5" };
    return { text: read("--text"), quiet: read("--quiet"), grid: read("--grid"), card: read("--card"), line: read("--line") };
  }

  function layout(place, title, extra) {
    const l = look();
    const narrow = place.clientWidth < 480;
    const axis = { gridcolor: l.grid, linecolor: l.line, zeroline: false, automargin: true, tickfont: { color: l.quiet } };
    return Object.assign({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 12, color: l.text },
      margin: { l: narrow ? 40 : 56, r: 12, t: 10, b: 40 },
      xaxis: Object.assign({}, axis, { title: { text: title, standoff: 8, font: { color: l.quiet } } }),
      yaxis: Object.assign({}, axis),
      hoverlabel: { bgcolor: l.card, bordercolor: l.line, font: { color: l.text }, namelength: 40 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: l.quiet, activecolor: l.text },
      dragmode: window.matchMedia("(pointer: coarse)").matches ? false : "zoom",
    }, extra);
  }

  // ------------------------------------------------------------------ lines
  function linesFigure(place, index) {
    const panel = data.panels[index];
    const shown = panel.traces.filter((t) => !state.hidden.has(t.run));
    const there = shown.filter((t) => t.x[state.axis]);
    const { divide, title } = horizontal();
    const many = data.runs.length > 1;
    const alike = new Set(panel.traces.map((t) => t.name)).size === 1;
    const traces = [];
    there.forEach((t, i) => {
      const named = plain(!many ? t.name : alike ? data.runs[t.run].label : data.runs[t.run].label + " · " + t.name);
      const line = { color: color(t.color), dash: data.dashes[t.dash], width: 1.6 };
      const common = { type: "scatter", name: named, legendgroup: String(i), hovertemplate: "%{y:.5g}" };
      const mode = t.marked ? "lines+markers" : "lines";
      traces.push(Object.assign({}, common, {
        x: along(t.x[state.axis], divide), y: numbers(t.y), mode, line, marker: { size: 5, color: color(t.color) },
        opacity: t.mean ? (isDark() ? 0.45 : 0.35) : 1, showlegend: !t.mean,
      }));
      if (t.mean) traces.push(Object.assign({}, common, {
        x: along(t.mean.x[state.axis], divide), y: numbers(t.mean.y), mode: "lines",
        line: Object.assign({}, line, { width: 2.2 }), hoverinfo: "skip", hovertemplate: null,
      }));
    });
    traces.push(...eventTraces([...new Set(there.map((t) => t.run))], divide));
    const logarithmic = state.logarithmic[index];
    const figure = layout(place, title, {
      height: place.clientWidth < 480 ? 300 : 340,
      hovermode: there.length <= 8 ? "x unified" : "closest",
      showlegend: there.length > 1,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } },
    });
    Object.assign(figure.yaxis, { type: logarithmic ? "log" : "linear", exponentformat: panel.unit === "bytes" ? "SI" : "power", title: { text: plain(panel.unit) } });
    if (logarithmic) Object.assign(figure.yaxis, { dtick: decadeStep(there) });
    figure.yaxis2 = { overlaying: "y", range: [0, 1], visible: false, fixedrange: true };
    figure.xaxis.range = range(there, divide);
    absent(place, shown.filter((t) => !t.x[state.axis]));
    return [traces, figure];
  }

  // Whole decades are labeled once there are three; below, Plotly's own ticks say more.
  function decadeStep(traces) {
    const [low, high] = extent(traces.map((t) => Array.from(numbers(t.y)).filter((v) => v > 0)));
    const decades = Math.log10(high) - Math.log10(low);
    return decades < 3 ? undefined : Math.ceil(decades / 6);
  }

  // In the color of its run, every event has a mark on the upper edge; a warning is a dotted line as well, what is
  // critical a solid one.
  function eventTraces(runs, divide) {
    const traces = [];
    for (const run of runs) {
      const events = data.events[run];
      if (!events.x[state.axis]) continue;
      const x = Array.from(along(events.x[state.axis], divide));
      const paint = data.runs.length > 1 ? color(run) : look().quiet;
      const common = { type: "scatter", yaxis: "y2", showlegend: false };
      for (const [severity, dash] of [["warning", "dot"], ["critical", "solid"]]) {
        const at = x.filter((_, i) => events.severity[i] === severity);
        if (at.length) traces.push(Object.assign({}, common, {
          mode: "lines", hoverinfo: "skip", x: at.flatMap((v) => [v, v, null]), y: at.flatMap(() => [0, 1, null]),
          line: { color: paint, width: 1, dash }, opacity: 0.6,
        }));
      }
      traces.push(Object.assign({}, common, {
        mode: "markers", x, y: x.map(() => 1), cliponaxis: false, name: "event",
        marker: { symbol: "triangle-down", size: events.severity.map((s) => (s === "note" ? 6 : 9)), color: paint },
        text: events.text.map((t, i) => plain(shorten(events.severity[i] + ", " + t, 90))), hovertemplate: "%{text}<extra></extra>",
      }));
    }
    return traces;
  }

  // A run without tokens is not drawn along tokens, and the figure says so.
  function absent(place, traces) {
    const next = place.nextElementSibling;
    if (next && next.classList.contains("absent")) next.remove();
    if (!traces.length) return;
    const runs = [...new Set(traces.map((t) => data.runs[t.run].label))];
    const said = document.createElement("p");
    said.className = "absent";
    said.textContent = "Not along " + state.axis + ", which was not recorded: " + runs.join(", ");
    place.after(said);
  }

  // ------------------------------------------------------------------ heat maps
  function matrix(trace) {
    const flat = numbers(trace.z);
    const columns = flat.length / trace.layers.length;
    return trace.layers.map((_, r) => flat.subarray(r * columns, (r + 1) * columns));
  }

  function heatFigure(place, index) {
    const panel = data.panels[index];
    const trace = panel.traces[Number(place.dataset.trace)];
    const axis = trace.x[state.axis] ? state.axis : "step";
    const { divide, title } = horizontal();
    const rows = matrix(trace);
    const every = panel.traces.flatMap(matrix);
    const negative = extent(every)[0] < 0;
    const logarithmic = panel.logarithmic && !negative && extent(every)[1] > 0;
    const bend = logarithmic ? (v) => (v > 0 ? Math.log10(v) : NaN) : (v) => v;
    let [low, high] = extent(every.map((row) => row.map(bend)));
    if (logarithmic) low = Math.max(low, high - HEAT_DECADES);
    const clip = (v) => (v === Infinity ? high : Number.isNaN(v) ? null : v);
    const l = look();
    const height = Math.min(520, Math.max(130, rows.length * 15)) + 56;
    const narrow = place.clientWidth < 480;
    const every_nth = Math.max(1, Math.ceil(rows.length / ((height - 56) / 14)));
    const labels = withoutEnding(trace.layers);
    const marks = rows.map((_, i) => i).filter((i) => i % every_nth === 0);
    const heat = {
      type: "heatmap", x: along(trace.x[axis], axis === "time" ? divide : 1),
      z: rows.map((row) => Array.from(row, (v) => clip(bend(v)))),
      customdata: rows.map((row) => Array.from(row, (v) => (Number.isNaN(v) ? "none" : v.toPrecision(4)))),
      text: rows.map((row, i) => Array.from(row, () => plain(trace.layers[i]))),
      hovertemplate: "%{text}<br>" + title + " %{x}: %{customdata}<extra></extra>",
      zmin: low, zmax: high > low ? high : low + 1, colorscale: "Viridis",
      colorbar: Object.assign({ thickness: 10, outlinewidth: 0, tickfont: { color: l.quiet }, x: 1.01, xpad: 4 }, logarithmic ? decades(low, high) : {}),
    };
    const figure = layout(place, axis === state.axis ? title : "step (no tokens recorded)", { height });
    figure.margin.r = 8;
    figure.margin.t = 6;
    Object.assign(figure.yaxis, {
      autorange: "reversed", showgrid: false, tickvals: marks,
      ticktext: marks.map((i) => plain(shorten(labels[i], narrow ? 16 : 30))), tickfont: { size: narrow ? 9 : 11, color: l.quiet },
    });
    figure.xaxis.showgrid = false;
    return [[heat], figure];
  }

  // Ticks of a logarithmic color scale: whole decades, or 1, 2 and 5 where it spans few.
  function decades(low, high) {
    const every = high - low < 2 ? [1, 2, 5] : [1];
    let values = [];
    for (let d = Math.floor(low); d <= high; d++) values.push(...every.map((m) => d + Math.log10(m)));
    values = values.filter((v) => v >= low && v <= high);
    if (values.length < 2) values = [low, high];
    const step = Math.ceil(values.length / 7);
    values = values.filter((_, i) => i % step === 0);
    return { tickvals: values, ticktext: values.map(power) };
  }

  function power(exponent) {
    const value = Number((10 ** exponent).toPrecision(2));
    if (exponent > -3 && exponent < 4) return String(value);
    const [digits, decade] = value.toExponential().split("e");
    return (digits === "1" ? "" : digits + "×") + "10<sup>" + Number(decade) + "</sup>";
  }

  // ------------------------------------------------------------------ drawing
  function draw(place) {
    const index = Number(place.dataset.panel);
    drawn.add(place);
    const heat = data.panels[index].kind === "layers";
    if (heat) {
      const trace = data.panels[index].traces[Number(place.dataset.trace)];
      caption(place, trace);
      place.hidden = state.hidden.has(trace.run);
      if (place.hidden) return;
    }
    const [traces, figure] = heat ? heatFigure(place, index) : linesFigure(place, index);
    const config = {
      displaylogo: false, responsive: true, showSendToCloud: false, plotlyServerURL: "",
      displayModeBar: window.matchMedia("(hover: hover)").matches ? "hover" : false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendDataToCloud", "sendChartToCloud"],
    };
    return window.Plotly.react(place.querySelector(".canvas") || canvas(place), traces, figure, config);
  }

  function canvas(place) {
    const inner = document.createElement("div");
    inner.className = "canvas";
    place.append(inner);
    return inner;
  }

  // Above each heat map: the run it is of, with its color.
  function caption(place, trace) {
    if (place.querySelector(".of") || (data.runs.length === 1 && !place.dataset.subtitle)) return;
    const of = document.createElement("p");
    of.className = "of about";
    of.textContent = data.runs[trace.run].label + place.dataset.subtitle;
    place.prepend(of);
  }

  function redraw() {
    for (const swatch of document.querySelectorAll(".swatch")) swatch.style.background = color(Number(swatch.dataset.run));
    return Promise.all(Array.from(drawn, draw));
  }

  function press(buttons, chosen) {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === chosen));
  }

  function listen() {
    const axes = document.querySelectorAll("button[data-axis]");
    for (const button of axes) button.addEventListener("click", () => { state.axis = button.dataset.axis; press(axes, button); redraw(); });
    for (const button of document.querySelectorAll("button.scale")) {
      const index = Number(button.dataset.panel);
      button.setAttribute("aria-pressed", String(state.logarithmic[index]));
      button.addEventListener("click", () => {
        state.logarithmic[index] = !state.logarithmic[index];
        button.setAttribute("aria-pressed", String(state.logarithmic[index]));
        redraw();
      });
    }
    for (const button of document.querySelectorAll("button.toggle")) {
      button.addEventListener("click", () => {
        const run = Number(button.dataset.run);
        const hide = !state.hidden.has(run);
        if (hide) state.hidden.add(run); else state.hidden.delete(run);
        button.setAttribute("aria-pressed", String(!hide));
        button.textContent = hide ? "hidden" : "shown";
        button.closest(".card").classList.toggle("hidden", hide);
        redraw();
      });
    }
    document.getElementById("theme").addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; redraw(); });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    window.addEventListener("beforeprint", () => { state.print = true; document.querySelectorAll(".plot").forEach(draw); });
    window.addEventListener("afterprint", () => { state.print = false; redraw(); });
  }

  async function start() {
    const [source, buffer] = await Promise.all([inflate("plotly"), inflate("arrays")]);
    arrays = buffer;
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(source);
    document.head.append(script);
    listen();
    redraw();
    const near = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); draw(entry.target); }
    }, { rootMargin: "600px" });
    document.querySelectorAll(".plot").forEach((place) => near.observe(place));
    root.dataset.ready = "true";
  }

  start().catch((error) => {
    notice.hidden = false;
    notice.textContent = "The figures could not be drawn: " + error.message;
    console.error(error);
  });
})();
