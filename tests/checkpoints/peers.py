"""The networks of two other projects in NumPy, from their descriptions, with random weights.

They are slow and plain: what our U-Net must equal after its weights were imported. Both agree to
1e-5 with outputs of the projects' own programs.
"""

import pickle
import zipfile

import numpy as np

EPSILON = 1e-5


def silu(x):
    return x / (1 + np.exp(-x))


def norm(w, name, x, groups):
    parts = x.reshape(len(x), groups, -1)
    parts = (parts - parts.mean(-1, keepdims=True)) / np.sqrt(
        parts.var(-1, keepdims=True) + EPSILON
    )
    return (
        parts.reshape(x.shape) * w[f"{name}.weight"][:, None, None]
        + w[f"{name}.bias"][:, None, None]
    )


def conv(w, name, x, stride=1):
    kernel, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    kernel = kernel.reshape(*kernel.shape[:2], *(kernel.shape[2:] * 2)[:2])
    side = kernel.shape[-1]
    x = np.pad(x, ((0, 0), (0, 0), (side // 2,) * 2, (side // 2,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (2, 3))
    windows = windows[:, :, ::stride, ::stride]
    return np.einsum("bihwyx,oiyx->bohw", windows, kernel) + bias[:, None, None]


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def doubled(x):
    return x.repeat(2, 2).repeat(2, 3)


def halved(x):
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).mean((3, 5))


def attention(qkv, heads, order):
    """Of (b, 3 c, h, w): (b, c, h, w)."""
    b, width, h, w = qkv.shape
    head = width // 3 // heads
    flat = qkv.reshape(b, width, h * w)
    if order == "new":
        q, k, v = (part.reshape(b, heads, head, h * w) for part in np.split(flat, 3, 1))
    else:
        q, k, v = np.split(flat.reshape(b, heads, 3 * head, h * w), 3, 2)
    scores = np.einsum("bnct,bncs->bnts", q, k) / np.sqrt(head)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    return np.einsum("bnts,bncs->bnct", scores, v).reshape(b, width // 3, h, w)


def sinusoids(level, width):
    frequency = np.exp(-np.log(1e4) * np.arange(width // 2) / (width // 2))
    return level[:, None] * frequency


class Weights(dict):
    """Random weights by name, drawn when they are first asked for by `shaped`."""

    def __init__(self, seed=0):
        super().__init__()
        self.rng = np.random.default_rng(seed)

    def shaped(self, name, *shape, bias=True):
        scale = 1 / np.sqrt(max(1, np.prod(shape[1:]))) if len(shape) > 1 else 0.3
        offset = 1 if len(shape) == 1 else 0
        self[f"{name}.weight"] = np.float32(offset + scale * self.rng.normal(size=shape))
        if bias:
            self[f"{name}.bias"] = np.float32(0.2 * self.rng.normal(size=shape[0]))


class Janspiry:
    """Janspiry's U-Net: weights(seed), and a call (x, √γ) with x (b, 2 c, h, w)."""

    def __init__(
        self, base=16, multipliers=(1, 2), blocks=1, attention=(8,), size=16, groups=8, c=3
    ):
        self.base, self.multipliers, self.blocks = base, multipliers, blocks
        self.attention, self.size, self.groups, self.c = attention, size, groups, c

    def weights(self):
        w, base = Weights(), self.base
        w.shaped("noise_level_mlp.1", 4 * base, base)
        w.shaped("noise_level_mlp.3", base, 4 * base)
        w.shaped("downs.0", base, 2 * self.c, 3, 3)
        last = len(self.multipliers) - 1
        width, skips, size, n = base, [base], self.size, 1
        for level, multiplier in enumerate(self.multipliers):
            for _ in range(self.blocks):
                self._block(w, f"downs.{n}", width, base * multiplier, size)
                width, n = base * multiplier, n + 1
                skips.append(width)
            if level < last:
                w.shaped(f"downs.{n}.conv", width, width, 3, 3)
                skips.append(width)
                size, n = size // 2, n + 1
        self._block(w, "mid.0", width, width, None)
        self._block(w, "mid.1", width, width, 0)
        n = 0
        for level in range(last, -1, -1):
            for _ in range(self.blocks + 1):
                wide = base * self.multipliers[level]
                self._block(w, f"ups.{n}", width + skips.pop(), wide, size)
                width, n = wide, n + 1
            if level:
                w.shaped(f"ups.{n}.conv", width, width, 3, 3)
                size, n = 2 * size, n + 1
        w.shaped("final_conv.block.0", width)
        w.shaped("final_conv.block.3", self.c, width, 3, 3)
        return {f"denoise_fn.{name}": value for name, value in w.items()}

    def _block(self, w, name, inside, outside, size):
        """Weights of a block; with attention where `size` is listed, or None."""
        inner = f"{name}.res_block"
        w.shaped(f"{inner}.noise_func.noise_func.0", outside, self.base)
        w.shaped(f"{inner}.block1.block.0", inside)
        w.shaped(f"{inner}.block1.block.3", outside, inside, 3, 3)
        w.shaped(f"{inner}.block2.block.0", outside)
        w.shaped(f"{inner}.block2.block.3", outside, outside, 3, 3)
        if inside != outside:
            w.shaped(f"{inner}.res_conv", outside, inside, 1, 1)
        if size is None or size in self.attention:
            w.shaped(f"{name}.attn.norm", outside)
            w.shaped(f"{name}.attn.qkv", 3 * outside, outside, 1, 1, bias=False)
            w.shaped(f"{name}.attn.out", outside, outside, 1, 1)

    def __call__(self, weights, x, root):
        w = {name.removeprefix("denoise_fn."): value for name, value in weights.items()}
        angles = sinusoids(root, self.base)
        e = np.concatenate([np.sin(angles), np.cos(angles)], -1)
        e = linear(w, "noise_level_mlp.3", silu(linear(w, "noise_level_mlp.1", e)))
        x = conv(w, "downs.0", x)
        skips, n = [x], 1
        while f"downs.{n}.conv.weight" in w or f"downs.{n}.res_block.block1.block.0.weight" in w:
            down = f"downs.{n}.conv.weight" in w
            x = conv(w, f"downs.{n}.conv", x, 2) if down else self._run(w, f"downs.{n}", x, e)
            skips.append(x)
            n += 1
        x = self._run(w, "mid.1", self._run(w, "mid.0", x, e), e)
        n = 0
        while f"ups.{n}.conv.weight" in w or f"ups.{n}.res_block.block1.block.0.weight" in w:
            if f"ups.{n}.conv.weight" in w:
                x = conv(w, f"ups.{n}.conv", doubled(x))
            else:
                x = self._run(w, f"ups.{n}", np.concatenate([x, skips.pop()], 1), e)
            n += 1
        x = silu(norm(w, "final_conv.block.0", x, self.groups))
        return conv(w, "final_conv.block.3", x)

    def _run(self, w, name, x, e):
        inner = f"{name}.res_block"
        h = conv(
            w, f"{inner}.block1.block.3", silu(norm(w, f"{inner}.block1.block.0", x, self.groups))
        )
        h = h + linear(w, f"{inner}.noise_func.noise_func.0", e)[..., None, None]
        h = conv(
            w, f"{inner}.block2.block.3", silu(norm(w, f"{inner}.block2.block.0", h, self.groups))
        )
        x = h + (conv(w, f"{inner}.res_conv", x) if f"{inner}.res_conv.weight" in w else x)
        if f"{name}.attn.qkv.weight" not in w:
            return x
        zero = {f"{name}.attn.qkv.bias": np.zeros(3 * x.shape[1])}
        qkv = conv(w | zero, f"{name}.attn.qkv", norm(w, f"{name}.attn.norm", x, self.groups))
        return x + conv(w, f"{name}.attn.out", attention(qkv, 1, "legacy"))


class GuidedDiffusion:
    """ADM's U-Net: weights(), and a call (x, t, y) with x (b, c or 2 c, h, w)."""

    def __init__(self, **options):
        self.channels, self.multipliers, self.blocks, self.size = 32, (1, 2), 1, 8
        self.attention, self.heads, self.head_channels, self.order = (4,), 2, 0, "legacy"
        self.classes, self.sigma, self.film, self.updown = 3, True, True, True
        self.c, self.seen, self.embedding = 3, 1, 0
        vars(self).update(options)

    def weights(self):
        w, base = Weights(1), self.channels
        wide = 4 * (self.embedding or base)
        w.shaped("time_embed.0", wide, wide // 4)
        w.shaped("time_embed.2", wide, wide)
        if self.classes:
            w.shaped("label_emb", self.classes, wide, bias=False)
        width = base * self.multipliers[0]
        w.shaped("input_blocks.0.0", width, self.c * self.seen, 3, 3)
        skips, size, n, last = [width], self.size, 1, len(self.multipliers) - 1
        for level, multiplier in enumerate(self.multipliers):
            for _ in range(self.blocks):
                self._block(w, f"input_blocks.{n}.0", width, base * multiplier, wide)
                width = base * multiplier
                if size in self.attention:
                    self._attention(w, f"input_blocks.{n}.1", width)
                skips.append(width)
                n += 1
            if level < last:
                if self.updown:
                    self._block(w, f"input_blocks.{n}.0", width, width, wide)
                else:
                    w.shaped(f"input_blocks.{n}.0.op", width, width, 3, 3)
                skips.append(width)
                size, n = size // 2, n + 1
        self._block(w, "middle_block.0", width, width, wide)
        self._attention(w, "middle_block.1", width)
        self._block(w, "middle_block.2", width, width, wide)
        n = 0
        for level in range(last, -1, -1):
            for index in range(self.blocks + 1):
                out = base * self.multipliers[level]
                self._block(w, f"output_blocks.{n}.0", width + skips.pop(), out, wide)
                width, part = out, 1
                if size in self.attention:
                    self._attention(w, f"output_blocks.{n}.1", width)
                    part = 2
                if level and index == self.blocks:
                    if self.updown:
                        self._block(w, f"output_blocks.{n}.{part}", width, width, wide)
                    else:
                        w.shaped(f"output_blocks.{n}.{part}.conv", width, width, 3, 3)
                    size *= 2
                n += 1
        w.shaped("out.0", width)
        w.shaped("out.2", self.c * (2 if self.sigma else 1), width, 3, 3)
        return dict(w)

    def _block(self, w, name, inside, outside, wide):
        w.shaped(f"{name}.in_layers.0", inside)
        w.shaped(f"{name}.in_layers.2", outside, inside, 3, 3)
        w.shaped(f"{name}.emb_layers.1", outside * (2 if self.film else 1), wide)
        w.shaped(f"{name}.out_layers.0", outside)
        w.shaped(f"{name}.out_layers.3", outside, outside, 3, 3)
        if inside != outside:
            w.shaped(f"{name}.skip_connection", outside, inside, 1, 1)

    def _attention(self, w, name, width):
        w.shaped(f"{name}.norm", width)
        w.shaped(f"{name}.qkv", 3 * width, width, 1)
        w.shaped(f"{name}.proj_out", width, width, 1)

    def __call__(self, w, x, t, y=None):
        wide = 4 * (self.embedding or self.channels)
        angles = sinusoids(np.asarray(t, float), wide // 4)
        e = np.concatenate([np.cos(angles), np.sin(angles)], -1)
        e = linear(w, "time_embed.2", silu(linear(w, "time_embed.0", e)))
        if self.classes:
            e = e + w["label_emb.weight"][y]
        skips, n = [], 0
        x = conv(w, "input_blocks.0.0", x)
        skips.append(x)
        per_level = self.blocks + 1
        count = len(self.multipliers) * per_level - 1
        for n in range(1, count + 1):
            if n % per_level:
                x = self._run(w, f"input_blocks.{n}.0", x, e)
                x = self._attend(w, f"input_blocks.{n}.1", x)
            elif self.updown:
                x = self._run(w, f"input_blocks.{n}.0", x, e, halved)
            else:
                x = conv(w, f"input_blocks.{n}.0.op", x, 2)
            skips.append(x)
        x = self._run(w, "middle_block.0", x, e)
        x = self._run(w, "middle_block.2", self._attend(w, "middle_block.1", x), e)
        for n in range(len(self.multipliers) * per_level):
            x = self._run(w, f"output_blocks.{n}.0", np.concatenate([x, skips.pop()], 1), e)
            x = self._attend(w, f"output_blocks.{n}.1", x)
            for part in (1, 2):
                if f"output_blocks.{n}.{part}.conv.weight" in w:
                    x = conv(w, f"output_blocks.{n}.{part}.conv", doubled(x))
                elif f"output_blocks.{n}.{part}.in_layers.0.weight" in w:
                    x = self._run(w, f"output_blocks.{n}.{part}", x, e, doubled)
        return conv(w, "out.2", silu(norm(w, "out.0", x, 32)))

    def _run(self, w, name, x, e, change=lambda x: x):
        h = change(silu(norm(w, f"{name}.in_layers.0", x, 32)))
        h = conv(w, f"{name}.in_layers.2", h)
        shift = linear(w, f"{name}.emb_layers.1", silu(e))[..., None, None]
        if self.film:
            scale, shift = np.split(shift, 2, 1)
            h = norm(w, f"{name}.out_layers.0", h, 32) * (1 + scale) + shift
        else:
            h = norm(w, f"{name}.out_layers.0", h + shift, 32)
        h = conv(w, f"{name}.out_layers.3", silu(h))
        x = change(x)
        skip = f"{name}.skip_connection"
        return h + (conv(w, skip, x) if f"{skip}.weight" in w else x)

    def _attend(self, w, name, x):
        if f"{name}.qkv.weight" not in w:
            return x
        heads = self.heads or x.shape[1] // self.head_channels
        qkv = conv(w, f"{name}.qkv", norm(w, f"{name}.norm", x, 32))
        return x + conv(w, f"{name}.proj_out", attention(qkv, heads, self.order))


def saved(path, weights):
    """A file as PyTorch saves it since 1.6."""
    text = b"\x80\x02ccollections\nOrderedDict\n)R("
    arrays = {}
    for i, (name, array) in enumerate(weights.items()):
        array = np.ascontiguousarray(array, np.float32)
        arrays[str(i)] = array.tobytes()
        text += pickle.dumps(name, 2)[2:-1]
        text += (
            b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        )
        text += pickle.dumps(str(i), 2)[2:-1] + pickle.dumps("cpu", 2)[2:-1]
        text += pickle.dumps(array.size, 2)[2:-1] + b"tQK\x00"
        text += pickle.dumps(array.shape, 2)[2:-1]
        stride = tuple(step // 4 for step in array.strides)
        text += pickle.dumps(stride, 2)[2:-1] + b"\x89ccollections\nOrderedDict\n)RtR"
    text += b"u."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", text)
        for key, data in arrays.items():
            archive.writestr(f"archive/data/{key}", data)
    return path
