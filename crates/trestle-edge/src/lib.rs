//! Client sockets: accept, upgrade, admission, WebSocket.
