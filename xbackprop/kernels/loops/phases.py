"""Images laid in rows, and the columns that a kernel sees of them.

An image lies with its padding in memory as one row, or for a stride of ``s`` as ``s`` by ``s`` rows
of which each holds the elements of one phase: those ``s`` apart. There an element of a kernel sees,
for all positions of the output at once, a slice of a row. Positions that straddle the end of a line
are among them; who picks the result out passes them over.
"""

import numpy as np

from xbackprop.kernels.loops.compiling import loop


@loop()
def spread(image, before, lines):
    """Lay an image ``(height, width)`` among the zeros of lines ``(sh, ., width)``, every sh-th."""
    sh = lines.shape[0]
    for a in range(sh):
        first = (a - before[0]) % sh
        place = (first + before[0]) // sh
        for i in range((image.shape[0] - first + sh - 1) // sh):
            source, target = image[first + i * sh], lines[a, place + i, before[1] :]
            for j in range(source.size):
                target[j] = source[j]


@loop()
def pick(lines, before, image):
    """Take an image back out of lines."""
    sh = lines.shape[0]
    for a in range(sh):
        first = (a - before[0]) % sh
        place = (first + before[0]) // sh
        for i in range((image.shape[0] - first + sh - 1) // sh):
            target, source = image[first + i * sh], lines[a, place + i, before[1] :]
            for j in range(target.size):
                target[j] = source[j]


@loop()
def split(line, parts):
    """Lay every element ``t sw + b`` of a line in part ``b`` of ``(sw, .)``."""
    sw, count = parts.shape
    if sw == 2:  # LLVM makes better loops of constants
        evens, odds = parts[0], parts[1]
        for t in range(count):
            evens[t] = line[2 * t]
            odds[t] = line[2 * t + 1]
    else:
        for b in range(sw):
            part, rest = parts[b], line[b:]
            for t in range(count):
                part[t] = rest[t * sw]


@loop()
def merge(parts, line):
    """Lay the parts back in the line."""
    sw, count = parts.shape
    if sw == 2:
        evens, odds = parts[0], parts[1]
        for t in range(count):
            line[2 * t] = evens[t]
            line[2 * t + 1] = odds[t]
    else:
        for b in range(sw):
            part, rest = parts[b], line[b:]
            for t in range(count):
                rest[t * sw] = part[t]


@loop()
def gather(x, first, before, stride, places, lengths, columns):
    """Fill ``columns`` ``(channels, elements, samples, positions)``.

    ``x`` is ``(samples, channels, height, width)``, ``first`` where the block starts in the first
    two, ``before`` the zeros before the others, ``lengths`` those of a phase; ``places`` tells
    where in the phases, flattened, an element of the kernel sees the first position.
    """
    channels, elements, samples, positions = columns.shape
    lines = np.zeros((stride[0], lengths[0], stride[1] * lengths[1]), x.dtype)
    whole = lines.reshape(-1)
    row = whole if stride[1] == 1 else np.empty_like(whole)
    for n in range(samples):
        for c in range(channels):
            spread(x[first[0] + n, first[1] + c], before, lines)
            if stride[1] > 1:
                split(whole, row.reshape(stride[1], -1))
            for k in range(elements):
                source, target = row[places[k] :], columns[c, k, n]
                for t in range(positions):
                    target[t] = source[t]


@loop()
def put_back(columns, first, before, stride, places, lengths, x):
    """Fill a block of ``x`` with the sums of columns, the adjoint of `gather`."""
    channels, elements, samples, positions = columns.shape
    lines = np.empty((stride[0], lengths[0], stride[1] * lengths[1]), x.dtype)
    whole = lines.reshape(-1)
    row = whole if stride[1] == 1 else np.empty_like(whole)
    for n in range(samples):
        for c in range(channels):
            row[:] = 0
            for k in range(elements):
                target, source = row[places[k] :], columns[c, k, n]
                for t in range(positions):
                    target[t] += source[t]
            if stride[1] > 1:
                merge(row.reshape(stride[1], -1), whole)
            pick(lines, before, x[first[0] + n, first[1] + c])
