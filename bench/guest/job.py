# SPDX-License-Identifier: Apache-2.0
"""What scripts do: dictionaries, strings, objects, JSON, regular expressions, integers that outgrow a register."""
import json
import re
import sys


class Node:
    def __init__(self, value):
        self.value, self.left, self.right = value, None, None

    def insert(self, value):
        side = "left" if value < self.value else "right"
        child = getattr(self, side)
        if child:
            child.insert(value)
        else:
            setattr(self, side, Node(value))

    def walk(self):
        if self.left:
            yield from self.left.walk()
        yield self.value
        if self.right:
            yield from self.right.walk()


for _ in range(int(sys.argv[1])):
    words = {}
    for w in re.findall(r"\w+", open("/tmp/data.small").read(60000)):
        words[w] = words.get(w, 0) + 1
    top = sorted(words.items(), key=lambda p: (-p[1], p[0]))[:5]
    copy = json.loads(json.dumps(words))
    tree, x = Node(500000), 1
    for _ in range(1500):
        x = x * 1103515245 + 12345 & 0x7FFFFFFF
        tree.insert(x % 1000000)
    big = pow(3, 2000) % (1 << 521)
    print(top, len(copy), sum(tree.walk()), big % 997)
