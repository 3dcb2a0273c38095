package svg

// Hatch defines the pattern of the class away; a page has it once.
const Hatch = `<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><line x1="0" y1="0" x2="0" y2="6" class="hatch"/></pattern></defs>
`

// Style is a style sheet for pictures that stand alone. A page has its own, with the same classes.
const Style = `
:root {
  --paper: #faf8f3; --card: #ffffff; --ink: #24211b; --quiet: #6f6a5f; --line: #e5e0d4; --faint: #f1ede3;
  --leader: #d99a00; --ready: #7ba58f; --down: #c8503a; --other: #b9b2a3; --write: #3f73b0; --good: #3d7a58;
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #171613; --card: #201e1a; --ink: #ece7dc; --quiet: #a29b8c; --line: #39352d; --faint: #2a2722;
  --leader: #f2b530; --ready: #6f9d86; --down: #ec7a62; --other: #6c665a; --write: #7fb0ea; --good: #86c7a2;
} }
svg { font: 12px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.paper { fill: var(--paper); } text { fill: var(--ink); white-space: pre; } .heading { font-size: 15px; font-weight: 600; }
.quietly { fill: var(--quiet); font-size: 11px; } .end { text-anchor: end; } .mid { text-anchor: middle; }
.axis { stroke: var(--line); } .mark { stroke: var(--ink); stroke-dasharray: 2 3; opacity: .4; }
.badge { fill: var(--ink); } .badgetext { fill: var(--card); font-size: 10px; font-weight: 600; text-anchor: middle; }
.lane { fill: var(--faint); } .leader { fill: var(--leader); } .candidate { fill: var(--write); } .follower { fill: var(--ready); }
.leaderless { fill: var(--ready); opacity: .4; } .down { fill: var(--down); } .other { fill: var(--other); }
.away { fill: url(#hatch); } .hatch { stroke: var(--down); stroke-width: 1.6; opacity: .8; }
.silence { stroke: var(--down); stroke-width: 2; stroke-dasharray: 3 2; } .missed { fill: var(--down); } .heard { fill: var(--good); }
line.ready { stroke: var(--ink); stroke-width: 2; } .started { stroke: var(--quiet); stroke-width: 2; }
.asks { stroke: var(--quiet); stroke-dasharray: 2 2; } line.granted { stroke: var(--good); stroke-width: 1.5; } circle.granted { fill: var(--good); }
line.denied { stroke: var(--down); stroke-width: 1.5; } circle.denied { fill: var(--down); } .none { fill: var(--down); font-size: 15px; font-weight: 700; }
line.hands { stroke: var(--leader); stroke-width: 2.5; } circle.hands { fill: var(--leader); }
.write { fill: var(--write); opacity: .55; } .took { fill: var(--ink); }
`
