(function () {
  "use strict";
  var NAMES = ["data", "network", "trained on", "estimator", "seed"];
  var COLOURS = IB.COLOURS, make = IB.make, draw = IB.draw;
  var W = 460, H = 340, LEFT = 54, BOTTOM = 50, TOP = 16, RIGHT = 14, MEAN = "mean";
  var root = document.getElementById("explorer"), status = document.getElementById("explorer-status");
  if (typeof PLANES === "undefined" || !PLANES.planes.length) {
    status.textContent = "There are no planes to show: explorer/planes.js is missing or empty. " +
      "`make study` or `make thesis` builds the book with its tables." +
      (typeof PLANES === "undefined" ? "" : " " + PLANES.missing.join("; "));
    return;
  }
  var planes = PLANES.planes, said = PLANES.missing.length ? "Left out: " + PLANES.missing.join("; ") + ". " : "";
  var time = 1, timer = null;

  function Panel(name, start) {
    this.name = name; this.choice = start.slice(); this.layer = 0;
    var box = make("fieldset", root, {}), self = this;
    make("legend", box, {}, "Plane " + name);
    this.selects = NAMES.map(function (label, place) {
      var line = make("label", box, {});
      make("span", line, {}, label);
      var select = make("select", line, { "aria-label": "Plane " + name + ", " + label });
      select.addEventListener("change", function () {
        self.choice[place] = select.value; self.settle(place); self.draw(); keep();
      });
      return select;
    });
    this.note = make("p", box, { "class": "stand-in" });
    this.svg = draw("svg", box, { viewBox: "0 0 " + W + " " + H, tabindex: "0", role: "application" });
    this.text = make("output", box, { "aria-live": "polite" });
    this.svg.addEventListener("keydown", function (event) {
      var move = { ArrowLeft: -1, ArrowRight: 1 }[event.key], step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (move) setTime(self.rank(self.at() + move));
      if (step) { var n = self.plane.layers.length; self.layer = (self.layer + step + n) % n; self.draw(); }
      if (move || step) event.preventDefault();
    });
    this.svg.addEventListener("pointermove", function (event) { self.point(event); });
    this.svg.addEventListener("pointerdown", function (event) { self.point(event); });
    this.settle(-1);
  }
  Panel.prototype.settle = function (fixed) {  // fill the choices that are left; keep what can be kept
    var held = planes, self = this;
    this.selects.forEach(function (select, place) {
      var options;
      if (place < 4) {
        options = held.map(function (p) { return p.choices[place]; }).filter(function (v, i, all) { return all.indexOf(v) === i; });
      } else {
        self.plane = held[0];
        options = [MEAN].concat(self.plane.runs.map(String));
      }
      if (options.indexOf(self.choice[place]) < 0) self.choice[place] = options[0];
      select.textContent = "";
      options.forEach(function (value) {
        make("option", select, { value: value }, value === MEAN ? "mean of " + self.plane.runs.length : value);
      });
      select.value = self.choice[place];
      select.disabled = options.length < 2;
      if (place < 4) held = held.filter(function (p) { return p.choices[place] === self.choice[place]; });
    });
    this.layer = Math.min(this.layer, this.plane.layers.length - 1);
    this.values();
  };
  Panel.prototype.values = function () {  // points [epoch][layer] = [x, y] in bits, null where there is none
    var p = this.plane, L = p.layers.length, E = p.epochs.length, run = p.runs.map(String).indexOf(this.choice[4]);
    var runs = run < 0 ? p.runs.map(function (_, i) { return i; }) : [run];
    function mean(list, e, l) {
      var sum = 0, n = 0;
      runs.forEach(function (r) { var v = list[(r * E + e) * L + l]; if (v !== null) { sum += v; n += 1; } });
      return n ? sum / n / 100 : null;
    }
    this.points = p.epochs.map(function (_, e) {
      return p.layers.map(function (_, l) { var x = mean(p.x, e, l), y = mean(p.y, e, l); return x === null || y === null ? null : [x, y]; });
    });
    var all = [].concat.apply([], this.points).filter(Boolean);
    this.most = [Math.max.apply(null, all.map(function (v) { return v[0]; }).concat(p.ceiling || 0)) * 1.04 || 1,
      Math.max.apply(null, all.map(function (v) { return v[1]; }).concat(p.labels)) * 1.12];
  };
  Panel.prototype.at = function () { return Math.round(time * (this.plane.epochs.length - 1)); };
  Panel.prototype.rank = function (index) {
    var last = this.plane.epochs.length - 1;
    return last ? Math.min(Math.max(index, 0), last) / last : 1;
  };
  Panel.prototype.x = function (bits) { return LEFT + bits / this.most[0] * (W - LEFT - RIGHT); };
  Panel.prototype.y = function (bits) { return H - BOTTOM - bits / this.most[1] * (H - BOTTOM - TOP); };
  Panel.prototype.draw = function () {
    var svg = this.svg, p = this.plane, self = this, e = this.at();
    svg.textContent = "";
    var title = "Plane " + this.name + ": " + p.choices.join(", ") + ", epoch " + p.epochs[e];
    svg.setAttribute("aria-label", title + ". Left and right change the epoch, up and down the layer.");
    draw("path", svg, { "class": "axis", d: "M" + LEFT + " " + TOP + "V" + (H - BOTTOM) + "H" + (W - RIGHT) });
    [0, 1].forEach(function (axis) {
      var step = [0.1, 0.2, 0.5, 1, 2, 5].filter(function (s) { return self.most[axis] / s <= 7; })[0] || 10;
      for (var v = 0; v <= self.most[axis]; v += step) {
        var label = String(Math.round(v * 10) / 10);
        if (axis) draw("text", svg, { x: LEFT - 6, y: self.y(v) + 4, "text-anchor": "end" }, label);
        else draw("text", svg, { x: self.x(v), y: H - BOTTOM + 17, "text-anchor": "middle" }, label);
      }
    });
    draw("text", svg, { x: (W + LEFT) / 2, y: H - 6, "text-anchor": "middle" }, "I(X;T) in bits");
    draw("text", svg, { x: 12, y: H / 2, transform: "rotate(-90 12 " + H / 2 + ")", "text-anchor": "middle" }, "I(T;Y) in bits");
    if (p.ceiling) draw("path", svg, { "class": "axis", "stroke-dasharray": "2 4", d: "M" + this.x(p.ceiling) + " " + TOP + "V" + (H - BOTTOM) });
    draw("path", svg, { "class": "axis", "stroke-dasharray": "7 4", d: "M" + this.x(0) + " " + this.y(0) + "L" + this.x(p.labels) + " " + this.y(p.labels) + "H" + (W - RIGHT) });
    p.layers.forEach(function (layer, l) {
      var way = self.points.slice(0, e + 1).map(function (row) { return row[l]; }).filter(Boolean);
      if (way.length > 1) draw("path", svg, { "class": "way", stroke: COLOURS[l % 7], d: "M" + way.map(function (v) { return self.x(v[0]).toFixed(1) + " " + self.y(v[1]).toFixed(1); }).join("L") });
    });
    var labels = [];
    p.layers.forEach(function (layer, l) {
      var v = self.points[e][l];
      if (!v) return;
      draw("circle", svg, { "class": "dot" + (l === self.layer ? " chosen" : ""), cx: self.x(v[0]), cy: self.y(v[1]), r: 8, fill: COLOURS[l % 7] });
      var near = labels.filter(function (other) { return Math.abs(other.x - self.x(v[0])) < 18 && Math.abs(other.y - self.y(v[1])) < 14; })[0];
      if (near) near.text += "," + (l + 1);
      else labels.push({ x: self.x(v[0]), y: self.y(v[1]), text: String(l + 1) });
    });
    labels.forEach(function (label) {
      var end = label.text.length > 2 && label.x > W - 40;
      draw("text", svg, { x: end ? label.x + 8 : label.x, y: label.y - 12, "text-anchor": end ? "end" : "middle" }, label.text);
    });
    this.note.textContent = p.source ? "stand-in data: " + p.source : "";
    this.read(e);
  };
  Panel.prototype.flags = function (e) {
    var p = this.plane, v = this.points[e][this.layer], before = this.layer ? this.points[e][this.layer - 1] : null, found = [];
    if (p.ceiling && v[0] >= 0.99 * p.ceiling) found.push("saturated: within 1 % of log₂ N");
    if (v[1] > p.labels + 0.005) found.push("I(T;Y) is above H(Y)");
    if (v[0] < -0.005 || v[1] < -0.005) found.push("negative");
    if (before && (v[0] > before[0] + 0.01 || v[1] > before[1] + 0.01)) found.push("more than the layer before (DPI)");
    return found;
  };
  Panel.prototype.read = function (e) {
    var p = this.plane, v = this.points[e][this.layer], name = (this.layer + 1) + ", " + p.layers[this.layer];
    var limits = " Limits: " + (p.ceiling ? "log₂ N " + p.ceiling.toFixed(2) + ", " : "") + "H(Y) " + p.labels.toFixed(2) + " bits.";
    if (!v) { this.text.textContent = "Layer " + name + ", epoch " + p.epochs[e] + ": not measured." + limits; return; }
    var flags = this.flags(e);
    this.text.textContent = "Layer " + name + ", epoch " + p.epochs[e] + ": I(X;T) " + v[0].toFixed(2) + ", I(T;Y) " + v[1].toFixed(2) +
      " bits." + limits + " Flags: " + (flags.length ? flags.join("; ") : "none") + ". ";
    var link = make("a", this.text, { href: p.page }, "The chapter");
    link.setAttribute("aria-label", "The chapter of plane " + this.name);
  };
  Panel.prototype.point = function (event) {
    var frame = this.svg.getBoundingClientRect(), x = (event.clientX - frame.left) * W / frame.width, y = (event.clientY - frame.top) * H / frame.height;
    var self = this, best = 900, found = -1;
    this.points[this.at()].forEach(function (v, l) {
      if (!v) return;
      var d = Math.pow(self.x(v[0]) - x, 2) + Math.pow(self.y(v[1]) - y, 2);
      if (d < best) { best = d; found = l; }
    });
    if (found >= 0 && found !== this.layer) { this.layer = found; this.draw(); }
  };

  function keep() {
    var state = new URLSearchParams();
    panels.forEach(function (panel) { state.set(panel.name, panel.choice.join("|")); });
    state.set("t", time.toFixed(4));
    IB.keep(state);
  }
  function setTime(value) {
    time = value; slider.value = String(Math.round(value * 1000));
    slider.setAttribute("aria-valuetext", panels.map(function (p) { return "epoch " + p.plane.epochs[p.at()]; }).join(" and "));
    panels.forEach(function (panel) { panel.draw(); });
    keep();
  }
  function wanted(state, name, fallback) {
    var given = state.get(name), parts = given ? given.split("|") : [];
    if (!given) return fallback;
    var known = planes.some(function (p) { return p.choices.every(function (v, i) { return v === parts[i]; }) && (parts[4] === MEAN || p.runs.map(String).indexOf(parts[4]) >= 0); });
    if (known && parts.length === 5) return parts;
    said += "The address names a plane that is not here (" + given + "): another one is shown. ";
    return fallback;
  }
  function first(network) {
    var held = planes.filter(function (p) { return p.choices[1] === network; });
    var found = held.filter(function (p) { return p.choices[2] === "85 %"; })[0] || held[0] || planes[0];
    return found.choices.concat(MEAN);
  }

  var state = new URLSearchParams(location.hash.slice(1)), t = state.get("t") === null ? 1 : Number(state.get("t"));
  if (!(t >= 0 && t <= 1)) { said += "The address names a time that is none (" + state.get("t") + "): the end is shown. "; t = 1; }
  var line = make("div", root, { "class": "time" });
  var button = make("button", line, { type: "button" }, "Play");
  var slider = make("input", line, { type: "range", min: "0", max: "1000", step: "1", "aria-label": "Epoch of both planes" });
  var panels = [new Panel("A", wanted(state, "A", first("tanh"))), new Panel("B", wanted(state, "B", first("relu")))];
  function stop() { clearInterval(timer); timer = null; button.textContent = "Play"; }
  button.addEventListener("click", function () {
    if (timer) { stop(); return; }
    if (time >= 1) setTime(0);
    button.textContent = "Stop";
    timer = setInterval(function () {
      var steps = Math.max.apply(null, panels.map(function (p) { return p.plane.epochs.length - 1; })) || 1;
      setTime(Math.min(1, time + 1 / steps));
      if (time >= 1) stop();
    }, 120);
  });
  slider.addEventListener("input", function () { stop(); setTime(Number(slider.value) / 1000); });
  setTime(t);
  status.textContent = said;
  root.setAttribute("data-ready", "yes");
})();
