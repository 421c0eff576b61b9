# SPDX-License-Identifier: LGPL-2.1-or-later
"""The benchmark's rows about qcow2: images, runs of qemu-img, targets.

  mixed.raw   what a disk is: files of this machine, holes, some noise
  small.raw   a little of it
  mapped      a large image, all of it mapped: its tables are what is read
  scattered   small clusters, written here and there: long tables, no order

Whoever comes first makes an image with its own qemu-img; all read the same one.
"""
import os
import random

MIB = 1 << 20


def files_of(folder):
    """Names of files, in an order that does not change."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                yield path


def sample(folder, limit):
    """Contents of files, of each at most 2 MiB, in whole blocks."""
    data = bytearray()
    for path in files_of(folder):
        if len(data) >= limit:
            break
        try:
            with open(path, 'rb') as f:
                data += f.read(2 * MIB)
        except OSError:
            continue
        data += bytes(-len(data) % 4096)
    return data[:limit]


class Images:
    """Makes images in the folder of an invocation, when they are needed."""

    def __init__(self, env, subject, qemu_img):
        self.env = env
        self.subject = subject
        self.qemu_img = qemu_img

    def run(self, *argv):
        self.subject.run([self.qemu_img, *argv])

    def make(self, name):
        path = self.env.path(name)
        if name == 'fresh.qcow2' and os.path.exists(path):
            os.unlink(path)
        if not os.path.exists(path):
            getattr(self, 'make_' + name.replace('.', '_'))(path)

    def prepare(self, row):
        """Inputs are there, the output is not."""
        for name in row.reads:
            self.make(name)
        if row.writes and os.path.exists(self.env.path(row.writes)):
            os.unlink(self.env.path(row.writes))

    def make_disk_qcow2(self, path):
        self.run('convert', '-f', 'raw', '-O', 'qcow2', self.env.disk, path)

    def make_fresh_qcow2(self, path):
        self.run('create', '-f', 'qcow2', path, '8G')

    def make_mixed_raw(self, path):
        unit = self.env.disk_bytes // 8
        with open(path, 'wb') as f:
            f.write(sample('/usr/lib', 2 * unit) + sample('/usr/bin', unit))
            f.seek(5 * unit)
            f.write(random.Random(1).randbytes(unit))
            f.truncate(8 * unit)

    def make_small_raw(self, path):
        """Little: with small clusters, stock takes long for each MiB."""
        with open(path, 'wb') as f:
            f.write(sample('/usr/bin', self.env.disk_bytes // 64))

    def make_mixed_qcow2(self, path):
        self.make('mixed.raw')
        self.run('convert', '-f', 'raw', '-O', 'qcow2',
                 self.env.path('mixed.raw'), path)

    def make_zlib_qcow2(self, path):
        self.make('mixed.raw')
        self.run('convert', '-c', '-f', 'raw', '-O', 'qcow2',
                 self.env.path('mixed.raw'), path)

    def make_mapped512_qcow2(self, path):
        self.run('create', '-f', 'qcow2', '-o', 'preallocation=metadata',
                 path, '2G' if self.env.quick else '512G')

    def make_mapped_qcow2(self, path):
        self.run('create', '-f', 'qcow2', '-o', 'preallocation=metadata',
                 path, '1G' if self.env.quick else '100G')

    def make_scattered_qcow2(self, path):
        """From a raw file with data in one block of eight, at random."""
        raw = path + '.raw'
        rnd = random.Random(2)
        blocks = 4000 if self.env.quick else 400000
        with open(raw, 'wb') as f:
            for _ in range(blocks // 8):
                f.seek(rnd.randrange(blocks) * 4096)
                f.write(b'x' * 4096)
            f.truncate(blocks * 4096)
        self.run('convert', '-f', 'raw', '-O', 'qcow2', '-o',
                 'cluster_size=4096', raw, path)
        os.unlink(raw)


def convert(name, source, target, fmt, options=()):
    """A row that makes @target, of format @fmt, from @source."""
    return {'name': name, 'reads': (source,), 'writes': target,
            'argv': lambda e: ['convert', *options,
                               '-f', source.split('.')[-1], '-O', fmt,
                               e.path(source), e.path(target)]}


def look(command, image):
    """A row of a command that goes through the tables of @image."""
    options = (['--output=json'] if command == 'map' else ['-O', 'qcow2'])
    return {'name': f'qemu-img {command} {image.split(".")[0]} qcow2',
            'reads': (image,), 'runs': 3,
            'argv': lambda e: [command, *options, '-f', 'qcow2',
                               e.path(image)]}


def read_parts(depth):
    """A row that reads a compressed image in order, 4 KiB at a time."""
    return {'name': f'qemu-img bench zlib qcow2 4k qd{depth}',
            'reads': ('zlib.qcow2',),
            'argv': lambda e: ['bench', '-f', 'qcow2', '-s', '4096', '-d',
                               str(depth), '-c', str(e.disk_bytes // 65536),
                               e.path('zlib.qcow2')]}


def compare(name, image):
    return {'name': name, 'reads': (image, 'mixed.raw'),
            'argv': lambda e: ['compare', '-f', 'qcow2', '-F', 'raw',
                               e.path(image), e.path('mixed.raw')]}


TOOL_ROWS = [
    convert('qemu-img convert raw to qcow2', 'mixed.raw', 'o', 'qcow2'),
    convert('qemu-img convert qcow2 to raw', 'mixed.qcow2', 'o', 'raw'),
    convert('qemu-img convert zlib qcow2 to raw', 'zlib.qcow2', 'o', 'raw'),
    convert('qemu-img convert -c zlib', 'mixed.raw', 'o', 'qcow2', ['-c']),
    convert('qemu-img convert -c zstd', 'mixed.raw', 'o', 'qcow2',
            ['-c', '-o', 'compression_type=zstd']),
    convert('qemu-img convert -c zlib 512-byte clusters', 'small.raw', 'o',
            'qcow2', ['-c', '-o', 'cluster_size=512']),
    read_parts(1),
    read_parts(16),
    {'name': 'qemu-img check mapped qcow2', 'reads': ('mapped512.qcow2',),
     'argv': lambda e: ['check', '-f', 'qcow2', e.path('mapped512.qcow2')]},
    compare('qemu-img compare qcow2', 'mixed.qcow2'),
    compare('qemu-img compare zlib qcow2', 'zlib.qcow2'),
    look('measure', 'mapped.qcow2'),
    look('map', 'mapped.qcow2'),
    look('measure', 'scattered.qcow2'),
    look('map', 'scattered.qcow2'),
]

TARGETS = [
    ('qcow2-buffered randread qd32 1q', 'cpu', 'stock', 4.0),
    ('qcow2-direct-native randread qd32 1q', 'cpu', 'stock', 1.5),
    ('qcow2-alloc write qd32 1q', 'cpu', 'stock', 1.5),
    ('qcow2-alloc randwrite qd32 1q', 'cpu', 'stock', 1.5),
    ('qemu-img convert raw to qcow2', 'wall', 'stock', 1.3),
    ('qemu-img convert qcow2 to raw', 'wall', 'stock', 1.3),
    ('qemu-img convert -c zlib', 'wall', 'stock', 4.0),
    ('qemu-img convert -c zlib', 'size', 'stock', 1 / 1.1),
    ('qemu-img convert -c zstd', 'wall', 'stock', 1.5),
    ('qemu-img bench zlib qcow2 4k qd1', 'wall', 'stock', 4.0),
    ('qemu-img bench zlib qcow2 4k qd16', 'wall', 'stock', 4.0),
    ('qemu-img check mapped qcow2', 'wall', 'stock', 4.0),
    ('qemu-img compare qcow2', 'wall', 'stock', 2.0),
    ('qemu-img measure mapped qcow2', 'wall', 'stock', 2.0),
    ('qemu-img map mapped qcow2', 'wall', 'stock', 2.0),
    ('qemu-img measure scattered qcow2', 'wall', 'stock', 2.0),
    ('qemu-img map scattered qcow2', 'wall', 'stock', 2.0),
] + [(row['name'], 'rss', 'stock', 1.0) for row in TOOL_ROWS]
