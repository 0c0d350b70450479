// The two ends of a webhook in Node: the public library for v1, Node's own crypto for v1a.
// Takes {verify: [{secret | publicKey, headers, body}], sign: [{secret | privateKey and publicKey, id, timestamp, body}]} as JSON on stdin,
// answers {verified: [true or what is wrong], signatures: [...]} on stdout. Keys are raw bytes in base64.
'use strict';
const crypto = require('node:crypto');
const { Webhook } = require('standardwebhooks');

const url = (base64) => base64.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
const message = (id, timestamp, body) => Buffer.from(`${id}.${timestamp}.${body}`);

function verify({ secret, publicKey, headers, body }) {
  if (secret) {
    new Webhook(secret).verify(body, headers, { jsonParse: false });
    return true;
  }
  const key = crypto.createPublicKey({ format: 'jwk', key: { kty: 'OKP', crv: 'Ed25519', x: url(publicKey) } });
  const signed = message(headers['webhook-id'], headers['webhook-timestamp'], body);
  const tokens = headers['webhook-signature'].split(' ').map((token) => token.split(','));
  return tokens.some(([version, signature]) => version === 'v1a' && crypto.verify(null, signed, key, Buffer.from(signature, 'base64')));
}

function sign({ secret, privateKey, publicKey, id, timestamp, body }) {
  if (secret) return new Webhook(secret).sign(id, new Date(timestamp * 1000), body);
  const key = crypto.createPrivateKey({ format: 'jwk', key: { kty: 'OKP', crv: 'Ed25519', d: url(privateKey), x: url(publicKey) } });
  return `v1a,${crypto.sign(null, message(id, timestamp, body), key).toString('base64')}`;
}

const attempt = (one) => {
  try {
    return verify(one);
  } catch (error) {
    return error.message;
  }
};

const { verify: received = [], sign: sent = [] } = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
process.stdout.write(JSON.stringify({ verified: received.map(attempt), signatures: sent.map(sign) }));
