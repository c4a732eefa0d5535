use std::time::Instant;

use serde_json::Value;

use super::*;
use crate::eventually::eventually;
use crate::upstream::Upstream;

const FEED: &str = "/v1/edge/feed";

struct Bench {
    upstream: Upstream,
    proxy: FeedProxy,
    client: Client,
}

impl Bench {
    async fn new() -> Self {
        let upstream = Upstream::start().await.unwrap();
        let proxy = FeedProxy::start(upstream.addr()).await.unwrap();
        Self { upstream, proxy, client: Client::fresh_connections().timeout(Duration::from_secs(5)) }
    }

    async fn ask(&self, path: &str) -> Result<Response> {
        self.client.get(&format!("http://{}{path}", self.proxy.addr())).send().await
    }

    /// The query as it reached the target.
    async fn query(&self, query: &str) -> String {
        let path: Value = self.ask(&format!("{FEED}{query}")).await.unwrap().json_at("/path").unwrap();
        path.as_str().unwrap().strip_prefix(FEED).unwrap().to_owned()
    }
}

#[tokio::test]
async fn everything_passes_unchanged_and_is_counted() {
    let bench = Bench::new().await;
    let url = format!("http://{}/v1/edge/quota/x?y=z", bench.proxy.addr());
    let sent = bench.client.request("PUT", &url).header("x-one", "1").body("four").send().await.unwrap();
    assert_eq!((sent.status, sent.header("x-upstream")), (200, Some("echo")));
    let seen = sent.json().unwrap();
    assert_eq!((&seen["method"], &seen["body_bytes"]), (&"PUT".into(), &4.into()));
    assert_eq!(seen["path"], "/v1/edge/quota/x?y=z");
    assert!(seen["headers"].as_array().unwrap().contains(&serde_json::json!(["x-one", "1"])));
    let tally = eventually("its end", Duration::from_secs(5), async || {
        let tally = bench.proxy.tally("/v1/edge/quota");
        if tally.in_flight == 0 { Ok(tally) } else { Err("it is under way") }
    });
    let counted = Tally {
        requests: 1,
        statuses: [(200, 1)].into(),
        passed: 1,
        latest_length: sent.body.len() as u64,
        in_flight_most: 1,
        bytes: sent.body.len() as u64,
        ..Tally::default()
    };
    assert_eq!(tally.await.unwrap(), counted);
    assert_eq!(bench.proxy.tally(FEED), Tally::default());
}

#[tokio::test]
async fn a_mode_is_for_its_prefix_and_for_as_many_answers_as_were_said() {
    let bench = Bench::new().await;
    bench.proxy.set_mode("/v1/edge/quota", Mode::Status(503));
    bench.proxy.spoil(FEED, Mode::Status(500), 2);
    let mut statuses = Vec::new();
    for path in [FEED, FEED, FEED, "/v1/edge/quota", "/v1/edge/history/1", "/v1/edge/quota"] {
        statuses.push(bench.ask(path).await.unwrap().status);
    }
    assert_eq!(statuses, [500, 500, 200, 503, 200, 503]);
    assert_eq!(bench.proxy.tally("/v1/edge").spoiled, 4);
    assert_eq!(bench.upstream.requests(), 2, "who is answered so costs the target nothing");
}

#[tokio::test]
async fn bodies_are_bent_cut_and_replaced() {
    let bench = Bench::new().await;
    let whole = bench.ask(FEED).await.unwrap().body;
    bench.proxy.set_mode(FEED, Mode::Flip(3));
    let flipped = bench.ask(FEED).await.unwrap().body;
    let different: Vec<usize> = (0..whole.len()).filter(|place| whole[*place] != flipped[*place]).collect();
    assert_eq!((different, whole[3] ^ flipped[3], flipped.len()), (vec![3], 1, whole.len()));
    bench.proxy.set_mode(FEED, Mode::Flip(usize::MAX));
    assert_eq!(bench.ask(FEED).await.unwrap().body.last(), Some(&(whole[whole.len() - 1] ^ 1)));

    bench.proxy.set_mode(FEED, Mode::Truncate(5, Ending::Framed));
    assert_eq!(bench.ask(FEED).await.unwrap().body, whole[..5]);
    bench.proxy.set_mode(FEED, Mode::Truncate(usize::MAX, Ending::Framed));
    assert_eq!(bench.ask(FEED).await.unwrap().body, whole[..whole.len() - 1]);
    for bytes in [0, 5] {
        bench.proxy.set_mode(FEED, Mode::Truncate(bytes, Ending::Cut));
        let cut = format!("{:#}", bench.ask(FEED).await.unwrap_err());
        assert!(cut.contains("reading the body"), "{cut}");
    }
    bench.proxy.set_mode(FEED, Mode::Html);
    let page = bench.ask(FEED).await.unwrap();
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html")));
    bench.proxy.set_mode(FEED, Mode::Pass);
    assert_eq!(bench.ask(FEED).await.unwrap().body, whole);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "how long an answer takes is what is measured")]
async fn answers_come_late_slowly_or_not_at_all() {
    let bench = Bench::new().await;
    let whole = bench.ask(FEED).await.unwrap().body;
    bench.proxy.set_mode(FEED, Mode::Delay(Duration::from_millis(200)));
    let began = Instant::now();
    assert_eq!(bench.ask(FEED).await.unwrap().body, whole);
    assert!(began.elapsed() >= Duration::from_millis(200));
    // In five pieces, each after a pause of 20 ms.
    bench.proxy.set_mode(FEED, Mode::Bandwidth(whole.len() as u64 * 10));
    let began = Instant::now();
    assert_eq!(bench.ask(FEED).await.unwrap().body, whole);
    assert!(began.elapsed() >= Duration::from_millis(100));

    bench.proxy.set_mode(FEED, Mode::Reset);
    let reset = format!("{:#}", bench.ask(FEED).await.unwrap_err());
    assert!(reset.contains("reset by peer"), "{reset}");
}

#[tokio::test]
async fn a_target_that_is_not_there_is_no_answer() {
    let bench = Bench::new().await;
    bench.proxy.retarget(([127, 0, 0, 1], 1).into());
    bench.ask(FEED).await.unwrap_err();
    assert!(bench.proxy.tally(FEED).statuses.is_empty());
}

#[tokio::test]
async fn who_hangs_is_counted_and_goes_on_when_the_mode_changes_or_is_gone_when_the_client_is() {
    let bench = Bench::new().await;
    bench.proxy.set_mode(FEED, Mode::Hang);
    let in_flight = async |expected: u64| {
        eventually("requests to hang", Duration::from_secs(5), async || match bench.proxy.tally(FEED) {
            Tally { in_flight, .. } if in_flight == expected => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
        .unwrap();
    };
    let freed = async {
        in_flight(2).await;
        bench.proxy.set_mode(FEED, Mode::Pass);
    };
    let (one, other, ()) = tokio::join!(bench.ask(FEED), bench.ask(FEED), freed);
    assert_eq!((one.unwrap().status, other.unwrap().status), (200, 200));

    bench.proxy.set_mode(FEED, Mode::Hang);
    let impatient = bench.client.clone().timeout(Duration::from_millis(50));
    impatient.get(&format!("http://{}{FEED}", bench.proxy.addr())).send().await.unwrap_err();
    in_flight(0).await;
    assert_eq!(bench.proxy.tally(FEED).in_flight_most, 2);
}

#[tokio::test]
async fn an_old_answer_is_the_first_of_its_kind() {
    let bench = Bench::new().await;
    for query in ["", "?after=1", "?after=2"] {
        assert_eq!(bench.query(query).await, query);
    }
    bench.proxy.set_mode(FEED, Mode::ReplayOld(Kind::After));
    assert_eq!(bench.query("?after=3").await, "?after=1");
    bench.proxy.set_mode(FEED, Mode::ReplayOld(Kind::Whole));
    assert_eq!(bench.query("?after=3").await, "");
    bench.proxy.set_mode(FEED, Mode::Pass);
    assert_eq!(bench.query("?after=3").await, "?after=3");
}

#[tokio::test]
async fn answers_are_swallowed_doubled_and_swapped() {
    let bench = Bench::new().await;
    bench.proxy.set_mode(FEED, Mode::Gap);
    assert_eq!(bench.query("?epoch=e&after=7&wait=20").await, "?epoch=e&after=8&wait=0");
    assert_eq!(bench.query("").await, "", "who has nothing misses nothing");
    assert_eq!(bench.upstream.requests(), 3);

    bench.proxy.spoil(FEED, Mode::Duplicate, 1);
    let given_to = async |asked: [u64; 4]| {
        let mut given = Vec::new();
        for after in asked {
            let query = bench.query(&format!("?after={after}")).await;
            given.push(query.strip_prefix("?after=").unwrap().parse::<u64>().unwrap());
        }
        given
    };
    assert_eq!(given_to([1, 2, 3, 4]).await, [1, 1, 3, 4], "one answer is given twice");
    bench.proxy.set_mode(FEED, Mode::Duplicate);
    assert_eq!(given_to([1, 2, 3, 4]).await, [1, 1, 3, 3]);
    bench.proxy.set_mode(FEED, Mode::Reorder);
    assert_eq!(given_to([1, 1, 5, 5]).await, [2, 1, 6, 5]);
}

#[tokio::test]
async fn port_stays_when_the_target_moves() {
    let bench = Bench::new().await;
    let other = Upstream::start().await.unwrap();
    bench.ask(FEED).await.unwrap();
    bench.proxy.retarget(other.addr());
    bench.ask(FEED).await.unwrap();
    assert_eq!((bench.upstream.requests(), other.requests()), (1, 1));
}
