"use strict";
// Whom the proxy believes, for targets that speak TLS; required before configurable-http-proxy is.
//
// The proxy would check a target by the name that the browser asked for, which is the platform's: so each target is
// checked by its own name here. A person's server has a name that tells its address and its pod, for which there is no
// DNS: see hub/src/astrocloud_hub/hosts.py.
//
// ASTROCLOUD_TRUST: the folder with the authorities' certificates, platform-ca and servers-ca. Without it, or one of
// them, nothing is believed but what Node believes by itself.

const fs = require("node:fs");
const https = require("node:https");
const net = require("node:net");
const path = require("node:path");
const tls = require("node:tls");

const folder = process.env.ASTROCLOUD_TRUST;
const SERVERS = ".server.astrocloud.internal";

// File -> what was read from it last: an upgrade may put a new authority there, and the proxy is not started anew.
const read = new Map();

function authority(name) {
  const file = path.join(folder, name);
  const { mtimeMs } = fs.statSync(file);
  const last = read.get(file);
  if (last && last.mtimeMs === mtimeMs) return last;
  const ca = fs.readFileSync(file, "utf8");
  const fresh = { mtimeMs, ca, secureContext: tls.createSecureContext({ ca }) };
  read.set(file, fresh);
  return fresh;
}

function addressIn(host) {
  const label = host.split(".", 1)[0];
  const address = label.replaceAll("-", label.split("-").length === 4 ? "." : ":");
  return net.isIP(address) ? address : null;
}

function lookup(host, options, callback) {
  const address = addressIn(host);
  if (address === null) {
    callback(Object.assign(new Error(`no address in ${host}`), { code: "ENOTFOUND" }));
  } else if (options.all) {
    callback(null, [{ address, family: net.isIP(address) }]);
  } else {
    callback(null, address, net.isIP(address));
  }
}

class Agent extends https.Agent {
  addRequest(request, options) {
    const host = options.host;
    const server = host.endsWith(SERVERS);
    let believed;
    try {
      believed = authority(server ? "servers-ca" : "platform-ca");
    } catch (error) {
      believed = { refused: error };
    }
    super.addRequest(request, {
      ...options,
      // Connections are kept by these, so that none is used for another name or with an older authority.
      servername: net.isIP(host) ? "" : host,
      ...believed,
      rejectUnauthorized: true,
      ...(server ? { lookup } : {}),
    });
  }

  createConnection(options, callback) {
    if (!options.refused) return super.createConnection(options, callback);
    process.nextTick(callback, options.refused); // answered like any target that cannot be reached
  }
}

if (folder) https.Agent = Agent;

// A Secret that was made from a file often ends with a newline, without which the hub reads it.
const token = process.env.CONFIGPROXY_AUTH_TOKEN;
if (token) process.env.CONFIGPROXY_AUTH_TOKEN = token.trim();
