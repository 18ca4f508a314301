"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // "text" stands for the color of the text, which differs in the dark.
  const inked = (value, ink) => {
    if (value === "text") return ink;
    if (Array.isArray(value) || value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, key === "color" || typeof inner === "object" ? inked(inner, ink) : inner]));
  };

  const draw = (place) => {
    const { data, layout } = structuredClone(figures[place.dataset.chart]);
    const ink = color("--text"), line = color("--line"), narrow = place.clientWidth < 480;
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, tickfont: { size: narrow ? 10 : 12 }, fixedrange: true };
    const whole = {
      ...layout,
      xaxis: { ...axis, ...layout.xaxis },
      yaxis: { ...axis, ...layout.yaxis },
      font: { color: ink, family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 13 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: narrow ? 8 : 16, r: 12, t: 8, b: 8 },
      hoverlabel: { bgcolor: color("--card"), bordercolor: line, font: { color: ink }, align: "left" },
      hovermode: "closest",
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", yref: "paper", font: { size: narrow ? 10 : 12 }, traceorder: "normal" },
      bargap: 0.25,
    };
    if (narrow && layout.yaxis.type === "category") {
      const half = 8, cut = (name) => (name.length > 2 * half ? `${name.slice(0, half)}…${name.slice(-half)}` : name);
      whole.yaxis.ticktext = layout.yaxis.tickvals.map(cut);
    }
    return Plotly.react(place, data.map((trace) => inked(trace, ink)), whole, { displayModeBar: false, responsive: true });
  };

  const places = [...document.querySelectorAll("[data-chart]")];
  const all = () => Promise.all(places.map(draw)).then(() => document.documentElement.setAttribute("data-drawn", String(places.length)));
  all();
  dark.addEventListener("change", all);
  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
})();
