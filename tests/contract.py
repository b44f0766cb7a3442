#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds a running server against its own contract, in both directions.

    contract.py URL [--key KEY]
    contract.py --serve BINARY FOLDER...  starts the server itself, once for each folder

Reads URL/openapi.json, calls every route that it documents (except those of the admin listener),
and checks of each answer that its status and content type are documented and that its body has
exactly the fields of its schema. Prints TAP; exits non-zero if something does not hold. Needs only
the standard library.
"""
import argparse
import contextlib
import http.client
import json
import subprocess
import sys
import urllib.parse

CHAT = [{'role': 'user', 'content': 'Good morning.'}]

# (method, path of the contract, path that is called, body or None)
CALLS = [
    ('POST', '/v1/completions', None, {'prompt': 'The old house', 'max_tokens': 4}),
    ('POST', '/v1/completions', None, {'prompt': 'The', 'max_tokens': 2, 'depth': 1, 'seed': 7}),
    ('POST', '/v1/completions', None, {'prompt': 'The', 'max_tokens': 2, 'layers': [0]}),
    ('POST', '/v1/completions', None,
     {'prompt': ['The', 'A'], 'max_tokens': 2, 'n': 2, 'return_token_ids': True, 'x_unknown': 1}),
    ('POST', '/v1/completions', None,
     {'prompt': 'The old house', 'max_tokens': 1, 'echo': True, 'logprobs': 2}),
    ('POST', '/v1/completions', None,
     {'prompt': 'The', 'max_tokens': 4, 'latency_budget_ms': 60000, 'min_depth': 1}),
    ('POST', '/v1/completions', None,
     {'prompt': 'The', 'max_tokens': 3, 'stream': True, 'logprobs': 1,
      'stream_options': {'include_usage': True}}),
    ('POST', '/v1/completions', None, {}),
    ('POST', '/v1/completions', None, {'prompt': 'The', 'depth': 0}),
    ('POST', '/v1/completions', None, {'prompt': 'The', 'depth': 100000}),
    ('POST', '/v1/completions', None, {'prompt': 'The', 'layers': [100000]}),
    ('POST', '/v1/completions', None, {'prompt': 'The', 'dept': 2}),
    ('POST', '/v1/completions', None, {'prompt': 'The', 'min_p': 0.5}),
    ('POST', '/v1/completions', None, {'prompt': 'The', 'max_tokens': 900000}),
    ('POST', '/v1/completions', None, {'prompt': 'The', 'model': 'no-such-model'}),
    ('POST', '/v1/completions', None, b'{"prompt": '),
    ('POST', '/v1/completions', None, b'{"prompt": "' + b'x' * 2_000_000 + b'"}'),
    ('GET', '/v1/completions', None, None),
    ('POST', '/v1/chat/completions', None, {'messages': CHAT, 'max_tokens': 3}),
    ('POST', '/v1/chat/completions', None,
     {'messages': CHAT, 'max_tokens': 3, 'logprobs': True, 'top_logprobs': 2}),
    ('POST', '/v1/chat/completions', None, {'messages': CHAT, 'max_tokens': 3, 'stream': True}),
    ('POST', '/v1/chat/completions', None, {'messages': CHAT, 'tools': [{'type': 'function'}]}),
    ('POST', '/v1/loglikelihood', None, {'input': 'The cat sat on the mat.'}),
    ('POST', '/v1/loglikelihood', None, {'input': [[1, 2, 3], 'The'], 'depth': 1}),
    ('POST', '/v1/loglikelihood', None, {'prompt': 'The'}),
    ('POST', '/v1/embeddings', None, {'input': 'The cat.'}),
    ('POST', '/v1/embeddings', None, {'input': 'The cat.', 'dimensions': 1}),
    ('POST', '/v1/embeddings', None, {'input': []}),
    ('POST', '/classify', None, {'input': 'The cat.'}),
    ('POST', '/classify', None, {'input': 'The cat.', 'head': 'no-such-head'}),
    ('POST', '/fill-mask', None, {'input': 'The <mask>.'}),
    ('POST', '/fill-mask', None, {'input': 'No mask here.'}),
    ('POST', '/v1/completions', None, {'prompt': 'The', 'num_beams': 2, 'stop': 'x'}),
    ('POST', '/v1/completions', None, {'prompt': 'The', 'num_beams': 2, 'stream': True}),
    ('POST', '/v1/loglikelihood', None, {'source': 'The', 'target': ['a', 'b']}),
    ('POST', '/tokenize', None, {'prompt': 'The cat sat.'}),
    ('POST', '/tokenize', None, {'prompt': ['The', 'cat'], 'return_token_strs': True}),
    ('POST', '/detokenize', None, {'tokens': [1, 2, 3]}),
    ('POST', '/detokenize', None, {'tokens': 'The'}),
    ('POST', '/v1/plan', None,
     {'prompt': 'The old house', 'latency_budget_ms': 60000, 'x_unknown': 1}),
    ('POST', '/v1/plan', None, {'prompt': 'The old house', 'route': '/nowhere'}),
    ('GET', '/v1/models', None, None),
    ('GET', '/v1/models/{id}', '/v1/models/no-such-model', None),
    ('GET', '/v1/depths', None, None),
    ('DELETE', '/v1/requests/{id}', '/v1/requests/req_none', None),
    ('GET', '/livez', None, None),
    ('GET', '/readyz', None, None),
    ('GET', '/health', None, None),
    ('GET', '/metrics', None, None),
    ('GET', '/version', None, None),
    ('GET', '/openapi.json', None, None),
    ('GET', '/', None, None),
]


# What a model of each kind must answer with 200. MASK stands for its mask token.
MASK = '<MASK>'
SERVED = {
    'decoder': [
        ('POST', '/v1/completions', None, {'prompt': 'The old house', 'max_tokens': 2}),
        ('POST', '/v1/loglikelihood', None, {'input': 'The old house'}),
    ],
    'encoder': [
        ('POST', '/v1/embeddings', None, {'input': 'The old house'}),
        ('POST', '/v1/embeddings', None,
         {'input': ['The', 'A house'], 'encoding_format': 'base64', 'pooling': 'cls', 'depth': 1}),
        ('POST', '/v1/plan', None, {'input': 'The', 'route': '/v1/embeddings'}),
    ],
    'encoder-decoder': [
        ('POST', '/v1/completions', None, {'prompt': 'The old house', 'max_tokens': 4}),
        ('POST', '/v1/completions', None,
         {'prompt': 'The', 'num_beams': 3, 'n': 3, 'logprobs': 1, 'max_tokens': 4,
          'return_token_ids': True, 'temperature': 1}),
        ('POST', '/v1/completions', None,
         {'prompt': 'The', 'stream': True, 'logprobs': 1, 'max_tokens': 4,
          'depth': {'encoder': 1, 'decoder': 1}}),
        ('POST', '/v1/completions', None,
         {'prompt': 'The', 'temperature': 1, 'n': 2, 'max_tokens': 4, 'depth': 1}),
        ('POST', '/v1/loglikelihood', None, {'source': 'The old', 'target': 'house'}),
        ('POST', '/v1/plan', None, {'prompt': 'The', 'depth': 'auto'}),
        ('POST', '/tokenize', None, {'prompt': 'The', 'side': 'target'}),
        ('POST', '/detokenize', None, {'tokens': [4], 'side': 'source'}),
    ],
}
TASKS = {
    'classify': [
        ('POST', '/classify', None, {'input': 'The old house', 'return_logits': True}),
        ('POST', '/classify', None, {'input': ['The', [4, 5]]}),
    ],
    'fill-mask': [
        ('POST', '/fill-mask', None, {'input': f'The {MASK} house', 'top_k': 3}),
        ('POST', '/fill-mask', None, {'input': [f'The {MASK} {MASK}', f'A {MASK}']}),
    ],
}


def served(meta):
    """The calls that a model must answer with 200."""
    calls = list(SERVED[meta['kind']])
    for task in meta['tasks']:
        calls += TASKS.get(task, [])
    for method, path, target, body in calls:
        if 'heads' in meta and path == '/classify':
            body = {**body, 'head': meta['heads'][0]['name']}
        text = json.dumps(body).replace(MASK, meta.get('mask_token', ''))
        yield method, path, target, json.loads(text)


class Contract:
    def __init__(self, document):
        self.document = document

    def resolve(self, part):
        while '$ref' in part:
            target = self.document
            for name in part['$ref'][2:].split('/'):
                target = target[name]
            part = target
        return part

    def operation(self, method, path):
        return self.document['paths'].get(path, {}).get(method.lower())

    def merged(self, schema):
        """The schema with those of its allOf in it."""
        schema = dict(self.resolve(schema))
        parts = [self.merged(part) for part in schema.pop('allOf', [])]
        if parts:
            schema.setdefault('type', parts[0].get('type'))
            schema['properties'] = dict(schema.get('properties', {}))
            schema['required'] = list(schema.get('required', []))
        for part in parts:
            schema['properties'].update(part.get('properties', {}))
            schema['required'] += part.get('required', [])
        return schema

    def problems(self, value, schema, at='answer'):
        """One sentence for everything in which the value is not what the schema says."""
        schema = self.merged(schema)
        if 'oneOf' in schema:
            tries = [list(self.problems(value, part, at)) for part in schema['oneOf']]
            if all(tries):
                yield f'{at} is none of its alternatives: {min(tries, key=len)[0]}'
            return
        types = schema.get('type')
        if types and not any(is_type(value, t) for t in (types if is_list(types) else [types])):
            yield f'{at} is {json.dumps(value)[:60]}, not {types}'
            return
        if 'const' in schema and value != schema['const']:
            yield f'{at} is not {schema["const"]}'
        if 'enum' in schema and value not in schema['enum']:
            yield f'{at} is {value}, not one of {schema["enum"]}'
        if is_list(value):
            if len(value) > schema.get('maxItems', len(value)):
                yield f'{at} has {len(value)} items'
            for i, item in enumerate(value):
                yield from self.problems(item, schema.get('items', {}), f'{at}[{i}]')
        if isinstance(value, dict):
            yield from self.object_problems(value, schema, at)

    def object_problems(self, value, schema, at):
        properties, more = schema.get('properties'), schema.get('additionalProperties')
        for name in schema.get('required', []):
            if name not in value:
                yield f'{at} has no {name}'
        for name, item in value.items():
            if properties and name in properties:
                yield from self.problems(item, properties[name], f'{at}.{name}')
            elif isinstance(more, dict):
                yield from self.problems(item, more, f'{at}.{name}')
            elif properties is not None:
                yield f'{at}.{name} is not documented'


def is_list(value):
    return isinstance(value, list)


def is_type(value, name):
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return {'object': isinstance(value, dict), 'array': is_list(value), 'null': value is None,
            'string': isinstance(value, str), 'boolean': isinstance(value, bool), 'number': number,
            'integer': number and float(value).is_integer()}[name]


class Server:
    def __init__(self, url, key):
        self.address = urllib.parse.urlsplit(url).netloc
        self.key = key

    def call(self, method, path, body=None):
        """Status, headers and text of the answer."""
        headers = {'Authorization': f'Bearer {self.key}'} if self.key else {}
        if body is not None:
            headers['Content-Type'] = 'application/json'
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.address, timeout=120)
        try:
            connection.request(method, path, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a refusal that did not wait for the whole body
        with connection.getresponse() as answer:
            text = answer.read().decode()
        connection.close()
        return answer.status, answer.headers, text


def event_values(text):
    """The JSON values of a stream, and whether it ended well."""
    data = [event[6:] for event in text.split('\n\n') if event.startswith('data: ')]
    return [json.loads(d) for d in data if d != '[DONE]'], data[-1:] == ['[DONE]']


def answer_problems(contract, operation, status, headers, text):
    response = operation['responses'].get(str(status))
    if response is None:
        yield f'status {status} is not documented: {text[:200]}'
        return
    response = contract.resolve(response)
    content = response.get('content')
    if content is None:
        if text:
            yield f'a body with status {status} is not documented'
        return
    kind = headers.get('Content-Type', '').split(';')[0]
    if kind not in content:
        yield f'content type {kind!r} is not documented for status {status}'
        return
    schema = content[kind]['schema']
    if kind == 'application/json':
        yield from contract.problems(json.loads(text), schema)
    elif kind == 'text/event-stream':
        values, done = event_values(text)
        if not done:
            yield 'the stream did not end with [DONE]'
        for i, value in enumerate(values):
            yield from contract.problems(value, schema, f'event {i}')
    if status >= 400 and kind == 'application/json':
        yield from error_problems(contract, status, json.loads(text))


def error_problems(contract, status, answer):
    error = answer.get('error')
    if not isinstance(error, dict):
        return  # a probe
    for row in contract.document['components']['x-errors']:
        if row['code'] == error.get('code') and row['status'] == status:
            if row['type'] != error.get('type'):
                yield f'type of {row["code"]} is {error.get("type")}'
            return
    yield f'code {error.get("code")} with status {status} is not documented'


class Report:
    def __init__(self):
        self.number = self.failed = 0

    def add(self, name, problems):
        self.number += 1
        problems = list(problems)
        self.failed += bool(problems)
        print(f'{"not " if problems else ""}ok {self.number} - {name}')
        for problem in problems[:10]:
            print(f'# {problem}')


def check_call(contract, server, method, path, target, body, must=None):
    operation = contract.operation(method, path)
    status, headers, text = server.call(method, target or path, body)
    if operation is None:  # a method that the route does not have
        operation = next(iter(contract.document['paths'][path].values()))
        if status != 405 or 'Allow' not in headers:
            yield f'status {status}, Allow {headers.get("Allow")}'
    if must and status != must:
        yield f'status {status}: {text[:200]}'
    yield from answer_problems(contract, operation, status, headers, text)


def check_head(contract, server, path):
    status, _, text = server.call('HEAD', path)
    if text or str(status) not in contract.operation('GET', path)['responses']:
        yield f'status {status} with {len(text)} bytes'


def check_options(contract, server, path):
    status, headers, _ = server.call('OPTIONS', path)
    allow = {word.strip() for word in headers.get('Allow', '').split(',')}
    missing = {m.upper() for m in contract.document['paths'][path]} - allow
    if status != 204 or missing:
        yield f'status {status}, Allow {headers.get("Allow")}'


def check_unknown(server):
    status, _, text = server.call('GET', '/v1/modles')
    if status != 404 or '/v1/models' not in text:
        yield f'status {status}: {text[:200]}'


def name_of(call):
    method, path, target, body = call
    shown = '' if body is None else (body if isinstance(body, bytes) else json.dumps(body))[:70]
    return f'{method} {target or path} {shown}'


def run(server, report):
    contract = Contract(json.loads(server.call('GET', '/openapi.json')[2]))

    calls = list(CALLS)
    models = json.loads(server.call('GET', '/v1/models')[2])['data']
    for model in models:
        calls.append(('GET', '/v1/models/{id}', '/v1/models/' + model['id'], None))
    for call in calls:
        report.add(name_of(call), check_call(contract, server, *call))
    for call in served(models[0]['meta']):
        report.add('served: ' + name_of(call), check_call(contract, server, *call, must=200))

    called = {(method, path) for method, path, _, _ in calls}
    for path, methods in contract.document['paths'].items():
        for method, operation in methods.items():
            if operation.get('x-listener') == 'admin':
                continue
            if (method.upper(), path) not in called:
                report.add(f'{method.upper()} {path} is called', ['no call for it in contract.py'])
        if all(operation.get('x-listener') != 'admin' for operation in methods.values()):
            report.add(f'OPTIONS {path}', check_options(contract, server, path))
        if 'get' in methods and '{' not in path:
            report.add(f'HEAD {path}', check_head(contract, server, path))
    report.add('an unknown path names the nearest', check_unknown(server))


@contextlib.contextmanager
def started(binary, folder):
    """The address of a server that ends with this context."""
    command = [binary, 'serve', '--model', folder, '--port', '0', '--chat-template', 'plain',
               '--packed-cache', 'off']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True) as process:
        try:
            words = process.stdout.readline().split()
            if not words:
                sys.exit(f'{binary} did not start')
            yield words[-1]
        finally:
            process.terminate()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('url', nargs='?')
    parser.add_argument('--key')
    parser.add_argument('--serve', nargs='+', metavar=('BINARY', 'FOLDER'))
    args = parser.parse_args()
    if bool(args.url) == bool(args.serve):
        parser.error('give a URL or --serve')
    report = Report()
    if args.url:
        run(Server(args.url, args.key), report)
    for folder in (args.serve or [])[1:]:
        with started(args.serve[0], folder) as url:
            run(Server(url, args.key), report)
    print(f'1..{report.number}')
    sys.exit(1 if report.failed else 0)


if __name__ == '__main__':
    main()
