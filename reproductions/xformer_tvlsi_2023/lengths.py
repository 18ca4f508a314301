"""Speed-up of X-Former over the GTX 1060 by sequence length, for BERT-base and longer positions."""

from __future__ import annotations

from pathlib import Path

import ohmformer as of

LENGTHS = (64, 128, 256, 384, 512, 1024, 2048, 4096)


def main() -> None:
    """Write the table beside this file."""
    xformer, gpu = of.load("xformer_tvlsi_2023"), of.load("gtx_1060")
    flows = (of.SequenceBlocking(dependencies="published"), of.SequenceBlocking(), of.LayerSerial())
    lines = ["| tokens | GTX 1060 | published | exact | layer by layer |", "|---|---|---|---|---|"]
    for tokens in LENGTHS:
        work = of.shapes("bert-base-long", tokens=tokens)
        reference = of.simulate(work, gpu).latency
        found = [of.simulate(work, xformer, flow).latency for flow in flows]
        cells = [f"{latency * 1e3:.3g} ms ({reference / latency:.1f}x)" for latency in found]
        lines.append(f"| {tokens} | {reference * 1e3:.3g} ms | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    (Path(__file__).parent / "lengths.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
