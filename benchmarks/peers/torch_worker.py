"""The process that runs torchdiffeq; needs PyTorch and torchdiffeq, and nothing of this package.

Reads one JSON object a line and answers each with one: `inputs` keeps tensors, `build` keeps a
solve, `call` runs and times one.
"""

import json
import sys
import time

import torch
import torchdiffeq
from torch import nn
from torch.nn import functional


class LotkaVolterra(nn.Module):
    """Predator and prey."""

    def __init__(self, args):
        """Hold the parameters."""
        super().__init__()
        self.args = nn.Parameter(args)

    def forward(self, t, y):
        """The derivative."""
        a, b, c, d = self.args
        prey, predator = y
        return torch.stack([a * prey - b * prey * predator, -c * predator + d * prey * predator])

    def parameter_tree(self, values):
        """Values, in the order of the parameters, as the caller arranges them."""
        return values[0].tolist()


class MLP(nn.Module):
    """One hidden tanh layer."""

    def __init__(self, args):
        """Hold the parameters."""
        super().__init__()
        self.w1 = nn.Parameter(args["w1"].t().contiguous())
        self.b1 = nn.Parameter(args["b1"])
        self.w2 = nn.Parameter(args["w2"].t().contiguous())
        self.b2 = nn.Parameter(args["b2"])

    def forward(self, t, y):
        """The derivative."""
        return functional.linear(
            torch.tanh(functional.linear(y, self.w1, self.b1)), self.w2, self.b2
        )

    def parameter_tree(self, values):
        """Values, in the order of the parameters, as the caller arranges them."""
        w1, b1, w2, b2 = values
        tensors = {"w1": w1.t(), "b1": b1, "w2": w2.t(), "b2": b2}
        return {key: value.tolist() for key, value in tensors.items()}


class MLPOfCube(MLP):
    """The network of `ode_demo`."""

    def forward(self, t, y):
        """The derivative."""
        return super().forward(t, y**3)


FIELDS = {"lotka_volterra": LotkaVolterra, "mlp": MLP, "mlp_of_cube": MLPOfCube}
LOSSES = {
    "sum_of_squares": lambda ys, data: (ys**2).sum(),
    "mean_absolute_error": lambda ys, data: (ys - data).abs().mean(),
}


def tensors(tree, dtype):
    """Nested lists, in dicts, as tensors."""
    if isinstance(tree, dict):
        return {key: tensors(value, dtype) for key, value in tree.items()}
    return None if tree is None else torch.tensor(tree, dtype=dtype)


class Server:
    """What has been sent and built, by number."""

    def __init__(self):
        """Nothing yet."""
        self.inputs, self.solves, self.ready = [], [], {}

    def keep_inputs(self, message):
        """Keep y0, args and data."""
        self.inputs.append({key: message[key] for key in ("y0", "args", "data")})
        return {"number": len(self.inputs) - 1}

    def build(self, message):
        """Keep the options of a solve."""
        self.solves.append(message)
        return {"number": len(self.solves) - 1}

    def _prepare(self, key):
        """Tensors and module of one pair of solve and inputs, made once and not timed."""
        if key not in self.ready:
            spec, given = self.solves[key[0]], self.inputs[key[1]]
            dtype = getattr(torch, spec["dtype"])
            y0, args, data = (tensors(given[name], dtype) for name in ("y0", "args", "data"))
            module = FIELDS[spec["field"]](args)
            self.ready[key] = spec, module, y0, torch.tensor(spec["ts"], dtype=dtype), data
        return self.ready[key]

    def call(self, message):
        """Run one solve; its seconds and, when asked, its outputs."""
        spec, module, y0, ts, data = self._prepare((message["solve"], message["inputs"]))
        run = forward if spec["mode"] == "forward" else gradient
        start = time.perf_counter()
        result = run(spec, module, y0, ts, data)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "outputs": listed(module, result) if message["outputs"] else 0}


def solve(spec, odeint, module, y0, ts):
    """The saved rows."""
    options = {"rtol": spec["rtol"], "atol": spec["atol"], "method": "dopri5"}
    ys = odeint(module, y0, ts, **options)
    return ys[-1] if spec["end"] else ys


def forward(spec, module, y0, ts, data):
    """Without a graph."""
    with torch.no_grad():
        return solve(spec, torchdiffeq.odeint, module, y0, ts)


def gradient(spec, module, y0, ts, data):
    """The loss, and its gradient by the parameters."""
    odeint = torchdiffeq.odeint_adjoint if spec["adjoint"] else torchdiffeq.odeint
    loss = LOSSES[spec["loss"]](solve(spec, odeint, module, y0, ts), data)
    return loss.detach(), torch.autograd.grad(loss, list(module.parameters()))


def listed(module, result):
    """Results as nested lists."""
    if isinstance(result, tuple):
        loss, values = result
        return {"loss": loss.tolist(), "gradient": module.parameter_tree(values)}
    return result.tolist()


def main():
    """Answer until the input ends."""
    server = Server()
    handlers = {"inputs": server.keep_inputs, "build": server.build, "call": server.call}
    version = f"{getattr(torchdiffeq, '__version__', '?')} (torch {torch.__version__})"
    print(json.dumps({"version": version}), flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        try:
            answer = handlers[message["op"]](message)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
