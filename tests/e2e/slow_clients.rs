//! Who sends or reads a byte at a time, or without end, is shown the door, and nobody else notices.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tollgate_tests::client::Client;
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, IssuerOptions};
use tollgate_tests::stack::{Stack, StackOptions};

const PASSWORD: &str = "correct horse battery";
/// The attacker comes from here; everybody else from 127.0.0.1.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SLOW_HEADS: usize = 300;
const SLOW_BODIES: usize = 300;
const SLOW_READERS: usize = 200;
/// Of those that read slowly, so many ask for more than the system's buffers hold, and read nothing.
const DEAF_READERS: usize = 4;
const FLOODS: usize = 100;
/// The limits, and what a machine that is busy with many tests takes to notice that one is over.
const HEAD_SECONDS: u64 = 10;
const BODY_SECONDS: u64 = 15;
const ANSWER_SECONDS: u64 = 15;
const SLACK_SECONDS: u64 = 10;
/// How long it takes until the buffers of the system hold no more of what is not read.
const FILL_SECONDS: u64 = 15;
/// How often an attacker sends a byte.
const DRIP: Duration = Duration::from_millis(200);
/// How long anybody else waits for an answer before it counts as none.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many answers are timed before the attack.
const QUIET_ROUNDS: usize = 10;
/// So many times as long as before may others wait during the attack, and this long beside, because a few hundred connections
/// are opened and floods are refused on the same processors. A server that serves nobody else until the slow ones are over
/// has them wait for most of those seconds.
const MIDDLE_RATIO: u32 = 5;
const MIDDLE_FLOOR: Duration = Duration::from_millis(500);
const SLOWEST_RATIO: u32 = 10;
const SLOWEST_FLOOR: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_endless_requests_end_in_time_and_others_do_not_notice() {
    let evidence = Evidence::of_this_test().unwrap();
    // All of the attack comes from one address, and none of it is to be closed for that.
    let connections = (2 * (SLOW_HEADS + SLOW_BODIES + SLOW_READERS + 3 * FLOODS)).to_string();
    let options = IssuerOptions::default()
        .with("METRICS_PUBLIC", "true")
        .with("CONNECTIONS_PER_ADDRESS_MAX", &connections);
    let issuer = Arc::new(Issuer::start(options, &evidence).await.unwrap());
    issuer.add_user("alice", PASSWORD, "free", &[], &["read"]).await.unwrap();
    let hashes = issuer.metric(HASHES, "").await.unwrap();
    let others = Others::start(&issuer, issuer.base_url()).await;
    let door = Door::of(issuer.addr());

    let mut attack = JoinSet::new();
    for _ in 0..SLOW_HEADS {
        attack.spawn(ended("a slow head", HEAD_SECONDS, NOTHING, slow_head(door.clone())));
    }
    for _ in 0..SLOW_BODIES {
        attack.spawn(ended("a slow body", BODY_SECONDS, &[408], slow_body(door.clone())));
    }
    for place in 0..SLOW_READERS {
        if place < DEAF_READERS {
            let limit = FILL_SECONDS + ANSWER_SECONDS;
            attack.spawn(ended("an unread answer", limit, NOTHING, deaf_reader(door.clone())));
        } else {
            // Its answer is in the system's buffers at once; what ends is a connection that asks for nothing more.
            attack.spawn(ended(
                "a slow reader",
                HEAD_SECONDS + ANSWER_SECONDS,
                &[200],
                slow_reader(door.clone()),
            ));
        }
    }
    for _ in 0..FLOODS {
        attack.spawn(ended("a body that is said to be too long", 5, &[413], announced_body(door.clone())));
        attack.spawn(ended("a body in chunks without end", 5, &[413], endless_body(door.clone())));
        attack.spawn(ended("headers without end", 5, &[431], endless_headers(door.clone())));
    }
    let mut ends = Vec::new();
    while let Some(end) = attack.join_next().await {
        ends.push(end.unwrap());
    }
    let served = others.stop().await;
    report(&ends, &served);
    // Every hash was one of a login that had arrived as a whole.
    assert_eq!(issuer.metric(HASHES, "").await.unwrap() - hashes, served.logins);
    assert_eq!(issuer.metric("tollgate_issuer_logins_total", "refused").await.unwrap(), 0);
    issuer.process().ensure_running().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_endless_requests_through_envoy_end_in_time_and_others_do_not_notice() {
    let options = StackOptions {
        issuer: IssuerOptions::default().with("TRUSTED_PROXIES", "[\"127.0.0.1\"]"),
        ..StackOptions::default()
    };
    let options = options
        .edit_plugin(|plugin| {
            for path in ["/v1/login", "/oauth2/token"] {
                let open = json!({ "match": { "path": path }, "requires": "none" });
                plugin["rules"].as_array_mut().unwrap().insert(0, open);
            }
        })
        .edit_bootstrap(|bootstrap| {
            let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
            let routes = format!("{manager}/route_config/virtual_hosts/0/routes");
            let routes = bootstrap.pointer_mut(&routes).unwrap().as_array_mut().unwrap();
            for path in ["/v1/login", "/oauth2/token"] {
                let route = json!({ "cluster": "issuer", "timeout": "60s" });
                routes.insert(0, json!({ "match": { "path": path }, "route": route }));
            }
            // Some hundred connections at once may take a busy machine longer than a second.
            let clusters = bootstrap.pointer_mut("/static_resources/clusters").unwrap();
            for cluster in clusters.as_array_mut().unwrap() {
                cluster["connect_timeout"] = json!("20s");
            }
        });
    let stack = Stack::start(options).await.unwrap();
    stack.issuer.add_user("alice", PASSWORD, "free", &[], &["read"]).await.unwrap();
    let hashes = stack.issuer.metric(HASHES, "").await.unwrap();
    let others = Others::start(&stack.issuer, stack.envoy.url()).await;
    let door = Door::of(stack.envoy.addr());

    let mut attack = JoinSet::new();
    for _ in 0..SLOW_HEADS {
        attack.spawn(ended("a slow head", HEAD_SECONDS, &[408], slow_head(door.clone())));
    }
    for _ in 0..SLOW_BODIES {
        attack.spawn(ended("a slow body", BODY_SECONDS, &[408], slow_body(door.clone())));
    }
    for _ in 0..FLOODS {
        attack.spawn(ended("a body that is said to be too long", 5, &[413], announced_body(door.clone())));
        // Envoy goes on sending while the issuer answers 413 and closes; the reset may reach it before the answer does, and
        // then it answers 503.
        attack.spawn(ended("a body in chunks without end", 5, &[413, 503], endless_body(door.clone())));
        attack.spawn(ended("headers without end", 5, &[431], endless_headers(door.clone())));
    }
    let mut ends = Vec::new();
    while let Some(end) = attack.join_next().await {
        ends.push(end.unwrap());
    }
    let served = others.stop().await;
    report(&ends, &served);
    assert_eq!(stack.issuer.metric(HASHES, "").await.unwrap() - hashes, served.logins);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_those_of_one_address_are_closed_and_another_address_is_served() {
    const CONNECTIONS_MAX: usize = 50;
    let evidence = Evidence::of_this_test().unwrap();
    let options = IssuerOptions::default().with("CONNECTIONS_PER_ADDRESS_MAX", &CONNECTIONS_MAX.to_string());
    let issuer = Issuer::start(options, &evidence).await.unwrap();
    issuer.add_user("alice", PASSWORD, "free", &[], &["read"]).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        held.push(connect(issuer.addr()).await);
    }
    // Each of them is served, also the last.
    for stream in [held.len() - 1, 0] {
        assert!(is_served(&mut held[stream]).await);
    }
    for _ in 0..20 {
        let mut further = connect(issuer.addr()).await;
        assert!(!is_served(&mut further).await, "more than {CONNECTIONS_MAX} connections of one address");
    }
    // From 127.0.0.1.
    issuer.login("alice", PASSWORD).await.unwrap();
    held.truncate(CONNECTIONS_MAX - 1);
    eventually("the place of a closed connection", PATIENCE, async || {
        if is_served(&mut connect(issuer.addr()).await).await { Ok(()) } else { Err("closed") }
    })
    .await
    .unwrap();
}

const HASHES: &str = "tollgate_issuer_password_hashes_total";

/// The connection ends without an answer.
const NOTHING: &[u16] = &[];

/// How a connection ended.
struct End {
    what: &'static str,
    took: Duration,
}

/// How long others waited for their answers, in order of length.
#[derive(Debug, Default)]
struct Waits {
    logins: Vec<Duration>,
    refreshes: Vec<Duration>,
}

/// What others were served before an attack and during it.
struct Served {
    /// How many logins there were in all.
    logins: u64,
    quiet: Waits,
    attacked: Waits,
}

/// Waits for the end of a connection, which has to come within the limit, with one of these answers.
#[expect(clippy::disallowed_methods, reason = "how long a connection lasts is what is measured")]
async fn ended(
    what: &'static str,
    limit_seconds: u64,
    statuses: &[u16],
    connection: impl Future<Output = Vec<u8>>,
) -> End {
    let began = Instant::now();
    let limit = Duration::from_secs(limit_seconds + SLACK_SECONDS);
    let answer = timeout(limit, connection).await;
    let answer = answer.unwrap_or_else(|_| panic!("{what} was still there after {limit:?}"));
    let answer = String::from_utf8_lossy(&answer);
    let found: Option<u16> = answer.get(9..12).and_then(|status| status.parse().ok());
    // The reset that an unread request leads to comes after the answer, and takes away nothing that has arrived before.
    let fits = found.map_or(statuses.is_empty(), |found| statuses.contains(&found));
    assert!(fits, "{what} was answered with {answer:?} after {:?}", began.elapsed());
    End { what, took: began.elapsed() }
}

fn report(ends: &[End], served: &Served) {
    let mut whats: Vec<&str> = ends.iter().map(|end| end.what).collect();
    whats.sort_unstable();
    whats.dedup();
    for what in whats {
        let mut took: Vec<_> = ends.iter().filter(|end| end.what == what).map(|end| end.took).collect();
        took.sort();
        println!("{:3} times {what}: ended after {:?} to {:?}", took.len(), took[0], took[took.len() - 1]);
    }
    let Served { logins: _, quiet, attacked } = served;
    for (what, quiet, attacked) in
        [("logins", &quiet.logins, &attacked.logins), ("refreshes", &quiet.refreshes, &attacked.refreshes)]
    {
        let (middle, slowest) = middle_and_slowest(quiet);
        let (middle_attacked, slowest_attacked) = middle_and_slowest(attacked);
        let count = attacked.len();
        println!(
            "{count} {what} in {middle_attacked:?}, at most {slowest_attacked:?}; before in {middle:?}, {slowest:?}"
        );
        assert!(middle_attacked <= middle * MIDDLE_RATIO + MIDDLE_FLOOR, "others waited for {what}");
        assert!(slowest_attacked <= slowest * SLOWEST_RATIO + SLOWEST_FLOOR, "others waited for {what}");
    }
}

fn middle_and_slowest(sorted: &[Duration]) -> (Duration, Duration) {
    (sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}

/// A client that logs in and refreshes all the time, and insists on each answer.
struct Others {
    stop: Arc<AtomicBool>,
    serving: tokio::task::JoinHandle<Served>,
}

impl Others {
    /// Sees first how long an answer takes while nobody else is there.
    async fn start(issuer: &Issuer, url: String) -> Self {
        let refresh_token = issuer.login("alice", PASSWORD).await.unwrap().refresh_token;
        let first = 1;
        // As anybody comes: with a new connection.
        let client = Client::fresh_connections().timeout(PATIENCE);
        let mut other = Other { client, url, refresh_token };
        let mut quiet = Waits::default();
        for _ in 0..QUIET_ROUNDS {
            other.round(&mut quiet).await;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let serving = tokio::spawn(async move {
            let mut attacked = Waits::default();
            // It is under attack from the start, so there is a first round.
            while attacked.logins.is_empty() || !until.load(Ordering::SeqCst) {
                other.round(&mut attacked).await;
            }
            let logins = first + quiet.logins.len() + attacked.logins.len();
            Served {
                logins: u64::try_from(logins).unwrap(),
                quiet: quiet.sorted(),
                attacked: attacked.sorted(),
            }
        });
        Self { stop, serving }
    }

    async fn stop(self) -> Served {
        self.stop.store(true, Ordering::SeqCst);
        self.serving.await.unwrap()
    }
}

impl Waits {
    fn sorted(mut self) -> Self {
        self.logins.sort();
        self.refreshes.sort();
        self
    }
}

struct Other {
    client: Client,
    url: String,
    refresh_token: String,
}

impl Other {
    async fn round(&mut self, waits: &mut Waits) {
        let Self { client, url, refresh_token } = self;
        let login = json!({ "username": "alice", "password": PASSWORD });
        let (took, _) = timed(client.post(&format!("{url}/v1/login")).json(&login).send_ok()).await;
        waits.logins.push(took);
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", "first-party"),
            ("refresh_token", &**refresh_token),
        ];
        let (took, answer) = timed(client.post(&format!("{url}/oauth2/token")).form(&form).send_ok()).await;
        *refresh_token = answer.json_at("/refresh_token").unwrap().as_str().unwrap().to_owned();
        waits.refreshes.push(took);
    }
}

#[expect(clippy::disallowed_methods, reason = "how long others wait is what is measured")]
async fn timed<T>(answer: impl Future<Output = anyhow::Result<T>>) -> (Duration, T) {
    let began = Instant::now();
    let answer = answer.await.unwrap();
    (began.elapsed(), answer)
}

async fn connect(to: SocketAddr) -> TcpStream {
    connect_with(to, None).await
}

async fn connect_with(to: SocketAddr, receive_buffer: Option<u32>) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    socket.bind((ATTACKER, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Where attackers come in, a few at a time: a connection that waits in the kernel's queue is reset when that is full, and
/// nothing is learnt of the server by it.
#[derive(Clone)]
struct Door {
    to: SocketAddr,
    places: Arc<Semaphore>,
}

impl Door {
    fn of(to: SocketAddr) -> Self {
        Self { to, places: Arc::new(Semaphore::new(64)) }
    }

    /// A connection on which one request was answered, so that it is the server's by now.
    async fn enter(&self, receive_buffer: Option<u32>) -> TcpStream {
        let _place = self.places.acquire().await.unwrap();
        let mut stream = connect_with(self.to, receive_buffer).await;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: issuer\r\n\r\n").await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap_or("0");
        let mut body = vec![0; length.trim().parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        stream
    }
}

async fn is_served(stream: &mut TcpStream) -> bool {
    let asked = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: issuer\r\n\r\n").await;
    let mut answer = [0; 12];
    asked.is_ok() && stream.read_exact(&mut answer).await.is_ok() && answer == *b"HTTP/1.1 200"
}

/// Writes `first`, then `rest` over and over, a piece at each tick, until the other side ends the connection. Gives what it
/// answered.
async fn drip(mut stream: TcpStream, first: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    if stream.write_all(first).await.is_err() {
        return answer;
    }
    let (mut reading, mut writing) = stream.split();
    let mut ticks = interval(DRIP);
    let mut bytes = rest.iter().cycle();
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            read = reading.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return answer,
                Ok(read) => answer.extend(&buffer[..read]),
            },
            _ = ticks.tick() => {
                let Some(byte) = bytes.next() else { return answer };
                if writing.write_all(&[*byte]).await.is_err() {
                    // What was answered before may still be there.
                    reading.read_to_end(&mut answer).await.ok();
                    return answer;
                }
            }
        }
    }
}

async fn slow_head(door: Door) -> Vec<u8> {
    let stream = door.enter(None).await;
    drip(stream, b"POST /v1/login HTTP/1.1\r\nHost: issuer\r\n", b"x-slow: a\r\n").await
}

/// A whole login but for its last bytes, which never come to an end.
async fn slow_body(door: Door) -> Vec<u8> {
    let stream = door.enter(None).await;
    let login = format!("{{\"username\":\"alice\",\"password\":\"{PASSWORD}\"");
    let head = format!(
        "POST /v1/login HTTP/1.1\r\nHost: issuer\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{login}",
        login.len() + 1000
    );
    drip(stream, head.as_bytes(), b" ").await
}

/// Reads a byte at each tick.
async fn slow_reader(door: Door) -> Vec<u8> {
    let mut stream = door.enter(Some(1)).await;
    stream
        .write_all(b"GET /.well-known/openid-configuration HTTP/1.1\r\nHost: issuer\r\n\r\n")
        .await
        .unwrap();
    let mut ticks = interval(DRIP);
    let mut answer = Vec::new();
    // It has to be read to its end to see that the other side has ended, so the last of it comes at once.
    while answer.len() < 100 {
        ticks.tick().await;
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(0) | Err(_) => return answer,
            Ok(_) => answer.extend(byte),
        }
    }
    stream.read_to_end(&mut answer).await.ok();
    answer
}

/// Asks for so much that no buffer holds it, and reads nothing of it.
async fn deaf_reader(door: Door) -> Vec<u8> {
    let mut stream = door.enter(Some(1)).await;
    let mut ticks = interval(DRIP);
    let requests = b"GET /metrics HTTP/1.1\r\nHost: issuer\r\n\r\n".repeat(5);
    loop {
        // An end is seen by what is written: nothing is read. Once nothing more can be written, the end is an error.
        if stream.write_all(&requests).await.is_err() {
            return Vec::new();
        }
        ticks.tick().await;
    }
}

async fn announced_body(door: Door) -> Vec<u8> {
    let stream = door.enter(None).await;
    let head = b"POST /v1/login HTTP/1.1\r\nHost: issuer\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n{";
    drip(stream, head, b" ").await
}

async fn endless_body(door: Door) -> Vec<u8> {
    let stream = door.enter(None).await;
    let head = b"POST /v1/login HTTP/1.1\r\nHost: issuer\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    flood(stream, head, &[b"400\r\n".as_slice(), &[b' '; 1024], b"\r\n"].concat()).await
}

async fn endless_headers(door: Door) -> Vec<u8> {
    let stream = door.enter(None).await;
    let header = [b"x-flood: ".as_slice(), &[b'a'; 4000], b"\r\n"].concat();
    flood(stream, b"POST /v1/login HTTP/1.1\r\nHost: issuer\r\n", &header).await
}

/// Writes `first`, then `rest` over and over, as fast as it goes, until the other side ends the connection.
async fn flood(mut stream: TcpStream, first: &[u8], rest: &[u8]) -> Vec<u8> {
    let (mut reading, mut writing) = stream.split();
    let sending = async {
        let mut sent = writing.write_all(first).await;
        while sent.is_ok() {
            sent = writing.write_all(rest).await;
        }
    };
    let mut answer = Vec::new();
    // Both have to be over: who still writes has not been stopped.
    let (_, read) = tokio::join!(sending, reading.read_to_end(&mut answer));
    read.ok();
    answer
}
