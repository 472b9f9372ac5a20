//! What is said of scenarios and figures.

/// A scenario on the page.
pub(super) struct Story {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// What is done, and what the first figure is.
    pub(super) work: &'static str,
    /// What the comparison does not do.
    pub(super) not: &'static str,
}

/// In the order of the page.
pub(super) const STORIES: [Story; 10] = [
    Story {
        name: "fanout",
        title: "Fan-out",
        work: "A message to all subscribers of a channel without history; the next ones are sent when everybody has \
              these. The server's CPU time per delivery. With more than one channel they are taken in turn.",
        not: "The gateway stamps each message with id, source and time, and keeps what it has written for a resume \
              until the client is known to have it; the peers do neither. It is spoken to in protobuf, as is \
              centrifuge; gorilla and Socket.IO have text. All clients live in the bench's one thread on the same \
              machine, which bounds what can be sent in a second, and latencies include their own reading of the \
              deliveries before.",
    },
    Story {
        name: "pace",
        title: "Fan-out at half the saturation rate",
        work: "The same for 1,000 subscribers at an even pace: half of the messages per second that the slower of \
              gateway and floor reaches with one at a time. From just before the send to the arrival.",
        not: "The pace is the same for all servers: for those that need more CPU it is more than half of what they \
              can do.",
    },
    Story {
        name: "own",
        title: "Publish and receive one's own",
        work: "64 clients, each on a channel of its own, publish, wait for their message, and publish the next. The \
              server's CPU time per round.",
        not: "No answer to the publish is asked for where the protocol can do without; centrifuge always answers. \
              sockudo is not here: a message goes to all but its publisher.",
    },
    Story {
        name: "request",
        title: "Request and reply",
        work: "A request of 128 bytes from a client through the gateway to a service that is attached by gRPC, and \
              its reply back; on the embedded bus, and on NATS with a server beside. The floor is one unary gRPC \
              call from the client to the service. The gateway's CPU time per request; the nats-server's own is not \
              in it.",
        not: "The direct call is not routed, checked, authenticated or given a deadline by anything between.",
    },
    Story {
        name: "ingest",
        title: "Push ingest",
        work: "A service pushes messages to a channel where nobody listens, each answered, with a window of 256 or \
              one at a time. The floor is the same gRPC streams with a server that only answers; centrifuge takes \
              one HTTP request for each message. The server's CPU time per message.",
        not: "The floor decodes each message and encodes its answer, and does nothing else.",
    },
    Story {
        name: "idle",
        title: "Idle connections",
        work: "10,000 subscribed connections that do nothing: growth of resident memory per connection, CPU time per \
              connection and second (over 25 s, in which most servers ping each client once), and resident memory 15 \
              s after all have left, over what it was before.",
        not: "Memory of the kernel for sockets is not in it; it is the same for all but for the sizes of buffers \
              that a server sets. Servers with a collector give memory back later than 15 s.",
    },
    Story {
        name: "handshake",
        title: "Handshake",
        work: "Connect and subscribe, 16 at once, in as few turns as each protocol allows. The server's CPU time per \
              connection.",
        not: "No TLS and no token. The floor and gorilla have no session to open.",
    },
    Story {
        name: "storm",
        title: "Storm",
        work: "So many connect and subscribe at once to a server that has just started. Seconds until the last one \
              is subscribed; a connection that fails is counted as lost.",
        not: "The clients are one thread on the same machine, which takes its share of the time.",
    },
    Story {
        name: "slow",
        title: "Slow readers",
        work: "Twenty of 1,000 subscribers stop reading while 2 MB are published to each. Growth of resident memory, \
              and the p99 of the others in the worst burst.",
        not: "What the kernel holds for the sockets is not in it. Policies differ: the gateway parts from a client \
              whose outbox is full; gorilla, centrifuge, nats and sockudo do so at bounds of their own, Socket.IO \
              keeps everything, the floor drops what is beyond its queue.",
    },
    Story {
        name: "growth",
        title: "Growth",
        work: "The same messages to the same 1,000 subscribers, while other sessions are there that hear nothing, \
              and while other channels are. The server's CPU time per delivery.",
        not: "Gateway and floor alone. A process holds no more connections than it may have open files: where the \
              limit is lower than 50,000, the largest number that it allows is measured.",
    },
];

/// A figure's name as a heading.
pub(super) fn label(name: &str) -> String {
    match name {
        "cpu_us" => "CPU us",
        "cpu_with_service_us" => "CPU with service us",
        "p50_us" => "p50 us",
        "p99_us" => "p99 us",
        "per_second" => "per second",
        "per_cpu_second" => "per CPU second",
        "messages_per_second" => "messages per second",
        "delivery_bytes" => "bytes",
        "connection_kb" => "KB per connection",
        "connection_cpu_us_per_second" => "CPU us/s per connection",
        "left_over_before" => "left over before",
        "before_mb" => "MB before",
        "left_mb" => "MB left",
        "all_subscribed_s" => "s until all subscribed",
        "growth_mb" => "growth MB",
        "others_p99_us" => "others' p99 us",
        "others_p99_over_before" => "p99 over before",
        "others_cpu_us" => "CPU us",
        "cpu_over_first" => "over the smallest",
        other => other,
    }
    .to_owned()
}
