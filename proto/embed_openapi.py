#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turns openapi.yaml into a C string of compact JSON.

    embed_openapi.py openapi.yaml VERSION openapi_json.c
"""
import json
import sys

import yaml


def literal(text):
    """Lines of C string literals; JSON's text is ASCII here."""
    for at in range(0, len(text), 90):
        piece = text[at:at + 90].replace('\\', '\\\\').replace('"', '\\"').replace('?', '\\?')
        yield f'\t"{piece}"\n'


def main():
    source, version, target = sys.argv[1:]
    with open(source, encoding='utf-8') as f:
        contract = yaml.safe_load(f)
    contract['info']['version'] = version
    text = json.dumps(contract, separators=(',', ':'))
    with open(target, 'w', encoding='ascii') as f:
        f.write('/* Made from openapi.yaml by embed_openapi.py. */\n#include "proto/openapi.h"\n\n')
        f.write('const char proto_openapi_json[] =\n')
        f.writelines(literal(text))
        f.write(f';\nconst size_t proto_openapi_json_len = {len(text)};\n')


if __name__ == '__main__':
    main()
