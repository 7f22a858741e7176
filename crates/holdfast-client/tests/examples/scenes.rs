//! What is done with the examples, on any cluster. Each scene has its cluster to itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use holdfast_client::collect::{CollectEvent, Collector, Resource, Scope, Version};
use holdfast_client::{Client, FolderEvent, KeyRange, ReadLevel};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::collector::ClusterSource;
use crate::config_reload::{Reload, Settings};
use crate::folder_watcher::Mirror;
use crate::http::Http;
use crate::leader_worker::{Printer, Work};
use crate::service_registry::{Instance, Peers};
use crate::{api_server, collector, config_reload, folder_watcher, leader_worker, readme, service_registry};

/// More than anything takes, on a machine that stands still for a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program of its own: ends when it is dropped.
struct Program<T>(JoinHandle<T>);

impl<T> Drop for Program<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn program<T: Send + 'static>(run: impl Future<Output = T> + Send + 'static) -> Program<T> {
    Program(tokio::spawn(run))
}

async fn next<T>(told: &mut mpsc::Receiver<T>) -> T {
    timeout(PATIENCE, told.recv()).await.expect("nothing more was told").expect("the program has ended")
}

/// Waits until something is told of which this is true.
async fn until<T: std::fmt::Debug>(told: &mut mpsc::Receiver<T>, is_it: impl Fn(&T) -> bool) -> T {
    loop {
        let it = next(told).await;
        if is_it(&it) {
            return it;
        }
    }
}

/// AW16, AW17: from defaults to settings, over bad ones that change nothing, back to defaults.
pub(crate) async fn settings_are_reloaded_and_the_last_good_ones_are_kept(endpoints: Vec<String>) {
    let client = Client::new(endpoints).unwrap();
    let (tell, mut told) = mpsc::channel(16);
    let following = client.clone();
    let _program = program(async move {
        config_reload::run(following, "config/app", |reload| tell.try_send(reload).unwrap()).await;
    });
    assert_eq!(next(&mut told).await, Reload::Defaults);
    for workers in [4, 8] {
        let settings = Settings { log_level: "debug".into(), workers };
        client.put("config/app", serde_json::to_vec(&settings).unwrap()).await.unwrap();
        assert_eq!(next(&mut told).await, Reload::Apply(settings));
    }
    // Its neighbour is none of its business.
    client.put("config/app2", "x").await.unwrap();
    client.put("config/app", "{\"workers\": many}").await.unwrap();
    assert!(matches!(next(&mut told).await, Reload::Keep(why) if why.contains("config/app")));
    client.delete("config/app").await.unwrap();
    assert_eq!(next(&mut told).await, Reload::Defaults);
}

/// WH26: of two workers one works; when it is gone the other one goes on, and whoever knows its token takes nothing from
/// the first one any more.
pub(crate) async fn one_worker_works_and_the_next_one_goes_on_where_it_was(endpoints: Vec<String>) {
    const JOBS: u64 = 12;
    let printer = Arc::new(Printer::default());
    let work = Work { jobs: JOBS, pace: Duration::from_millis(20) };
    let worker = |name: &'static str| {
        let (client, printer) = (Client::new(endpoints.clone()).unwrap(), Arc::clone(&printer));
        program(async move { leader_worker::run(&client, name, work, &printer).await })
    };
    let first = worker("a");
    wait_for(|| printer.paper().len() >= 3).await;
    let (paper, token) = (printer.paper(), printer.token());
    assert!(paper.iter().all(|line| line.ends_with("by a")), "{paper:?}");
    let mut second = worker("b");
    // As a process that ends: its session is given up, or ends by itself.
    drop(first);
    timeout(PATIENCE, &mut second.0).await.unwrap().unwrap().unwrap();

    let paper = printer.paper();
    let by_b = paper.iter().position(|line| line.ends_with("by b")).unwrap();
    assert!(paper[by_b..].iter().all(|line| line.ends_with("by b")), "they take turns: {paper:?}");
    let mut jobs: Vec<u64> =
        paper.iter().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    assert!(jobs.is_sorted(), "{paper:?}");
    // What was printed and not noted when the first one ended was printed again.
    jobs.dedup();
    assert!(jobs.into_iter().eq(0..JOBS), "{paper:?}");
    assert!(printer.token() > token);
    assert!(!printer.print(token, "late".into()), "an earlier leader is not listened to");
}

/// An instance is on the list of both as long as it lives.
pub(crate) async fn an_instance_is_listed_as_long_as_it_lives(endpoints: Vec<String>) {
    let instance = |name: &str| {
        let (service, address) = ("web".to_owned(), format!("10.0.0.{name}:80"));
        let (own, client) =
            (Instance { service, name: name.into(), address }, Client::new(endpoints.clone()).unwrap());
        let (tell, told) = mpsc::channel::<Peers>(64);
        let running = program(async move {
            service_registry::run(&client, &own, |peers| tell.try_send(peers).unwrap()).await
        });
        (running, told)
    };
    let names = |peers: &Peers| peers.keys().cloned().collect::<Vec<_>>();
    let (_one, mut told_one) = instance("1");
    until(&mut told_one, |peers| names(peers) == ["1"]).await;
    let (two, mut told_two) = instance("2");
    let both = until(&mut told_two, |peers| peers.len() == 2).await;
    assert_eq!(both["1"], "10.0.0.1:80");
    assert_eq!(until(&mut told_one, |peers| peers.len() == 2).await, both);
    drop(two);
    let left = until(&mut told_one, |peers| peers.len() == 1).await;
    assert_eq!(names(&left), ["1"]);
    let client = Client::new(endpoints.clone()).unwrap();
    assert_eq!(service_registry::look_up(&client, "web").await.unwrap(), left);
}

/// RS4, RS5, RS6, AW26: strict writes over HTTP, reads that are as new as they are asked to be, changes as lines.
pub(crate) async fn widgets_are_served_over_http(endpoints: Vec<String>) {
    let client = Client::new(endpoints).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = Http::new(format!("http://{}", listener.local_addr().unwrap()));
    let (stop, stopped) = oneshot::channel::<()>();
    let mut server = program(api_server::run(client, listener, async { drop(stopped.await) }));
    let widget = |size: u32| json!({ "namespace": "default", "name": "w", "size": size });
    let version = |body: &Value| body["version"].as_u64().unwrap();
    let one = "/widgets/default/w";

    let (status, created) = http.send(Method::POST, "/widgets", &widget(1)).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    let (status, again) = http.send(Method::POST, "/widgets", &widget(2)).await;
    assert_eq!(status, StatusCode::CONFLICT, "{again}");
    let first = version(&created);
    let (status, read) = http.send(Method::GET, &format!("{one}?version={first}"), &Value::Null).await;
    assert_eq!((status, &read), (StatusCode::OK, &created));
    let (_, listed) = http.send(Method::GET, &format!("/widgets?version={first}"), &Value::Null).await;
    assert_eq!(listed["items"], json!([created]));
    let mut lines = http.lines(&format!("/watch?namespace=default&version={first}")).await;

    let (status, updated) = http.send(Method::PUT, &format!("{one}?version={first}"), &widget(3)).await;
    assert_eq!(status, StatusCode::OK, "{updated}");
    let second = version(&updated);
    let (status, late) = http.send(Method::PUT, &format!("{one}?version={first}"), &widget(4)).await;
    assert_eq!((status, version(&late)), (StatusCode::CONFLICT, second));
    let (status, deleted) = http.send(Method::DELETE, one, &Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{deleted}");
    let third = version(&deleted);
    let (status, _) = http.send(Method::GET, &format!("{one}?version={third}"), &Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = http.send(Method::DELETE, one, &Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = http.send(Method::POST, "/widgets", &json!({ "size": "large" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);

    let line = timeout(PATIENCE, lines.next()).await.unwrap();
    assert_eq!((&line["kind"], version(&line), &line["widget"]), (&json!("Modified"), second, &widget(3)));
    let line = timeout(PATIENCE, lines.next()).await.unwrap();
    assert_eq!(
        (&line["kind"], version(&line), &line["key"]),
        (&json!("Deleted"), third, &json!("default/w"))
    );
    // Whoever watches is gone before the server is.
    drop(lines);
    stop.send(()).unwrap();
    timeout(PATIENCE, &mut server.0).await.unwrap().unwrap().unwrap();
}

/// CP2, CP4, CP13, CP15: objects of three clusters in one list, each with the version that it has at home; a run that comes
/// behind another one writes nothing again.
pub(crate) async fn three_clusters_are_collected_in_one_and_a_second_run_writes_nothing(
    endpoints: Vec<String>,
) {
    let client = Client::new(endpoints).unwrap();
    let mut sources = Vec::new();
    let mut origins = BTreeMap::new();
    for name in ["east", "north", "west"] {
        let home = client.namespaced(format!("{name}/"));
        for pod in ["default/a", "system/b"] {
            let revision = home.put(format!("pods/{pod}"), format!("{pod} of {name}")).await.unwrap();
            origins.insert(format!("{name}/{pod}"), revision.to_string());
        }
        sources.push(ClusterSource::new(name, home, "pods/").unwrap());
    }
    let run = |sources: Vec<ClusterSource>| {
        let (tell, told) = mpsc::channel::<CollectEvent>(64);
        let client = client.clone();
        let collecting = program(async move {
            collector::run(client, "pods", &sources, |event| tell.try_send(event.clone()).unwrap()).await
        });
        (collecting, told)
    };
    let (first, mut told) = run(sources.clone());
    for _ in 0..origins.len() {
        until(&mut told, |event| matches!(event, CollectEvent::Put(_))).await;
    }
    drop(first);

    let collection =
        Collector::open(client.clone()).await.unwrap().collection(Resource::new("pods").unwrap());
    let listed = async || collection.list(&Scope::all(), ReadLevel::Linearizable).await.unwrap();
    let before = listed().await;
    let home: BTreeMap<String, String> = before
        .objects
        .iter()
        .map(|object| (format!("{}/{}", object.source, object.name), object.version.origin.to_string()))
        .collect();
    assert_eq!(home, origins);
    let newest: Vec<Version> = before.objects.iter().map(|object| object.version.clone()).collect();
    assert!(newest.iter().all(|version| version.revision <= before.version.revision));

    // A change that was made while nobody collected is the only one that a second run finds.
    let west = client.namespaced("west/");
    let changed = west.put("pods/default/a", "another").await.unwrap().to_string();
    let (_second, mut told) = run(sources);
    let event = until(
        &mut told,
        |event| matches!(event, CollectEvent::Put(object) if object.version.origin.as_str() == changed),
    )
    .await;
    assert!(matches!(event, CollectEvent::Put(object) if object.bytes == "another"));
    let after = listed().await;
    let same = after.objects.iter().filter(|object| newest.contains(&object.version)).count();
    assert_eq!(same, newest.len() - 1, "nothing else is written again");
    // And what is deleted at home is gone here.
    west.delete("pods/default/a").await.unwrap();
    until(&mut told, |event| matches!(event, CollectEvent::Deleted { .. })).await;
    assert_eq!(listed().await.objects.len(), newest.len() - 1);
}

/// WH26: what was there is fresh, then each change is told as what it is; the copy is what the store has.
pub(crate) async fn wh26_a_folder_is_mirrored(endpoints: Vec<String>) {
    let client = Client::new(endpoints).unwrap();
    client.put("areas/eu/berlin", "open").await.unwrap();
    client.put("areas/us/reno", "closed").await.unwrap();
    client.put("other", "x").await.unwrap();
    let (tell, mut told) = mpsc::channel::<(FolderEvent, Mirror)>(64);
    let watching = client.clone();
    let _program = program(async move {
        folder_watcher::run(&watching, "areas/", |event, mirror| {
            tell.try_send((event.clone(), mirror.clone())).unwrap();
        })
        .await
    });
    for key in ["areas/eu/berlin", "areas/us/reno"] {
        assert!(matches!(next(&mut told).await.0, FolderEvent::Fresh(kv) if kv.key == key));
    }
    assert!(
        matches!(next(&mut told).await, (FolderEvent::Ready { .. }, mirror) if mirror.entries.len() == 2)
    );
    client.set_if_not_exists("areas/eu/rome", "open").await.unwrap();
    assert!(matches!(next(&mut told).await.0, FolderEvent::Created(kv) if kv.key == "areas/eu/rome"));
    client.put("areas/eu/berlin", "closed").await.unwrap();
    assert!(matches!(next(&mut told).await.0, FolderEvent::Modified(kv) if kv.value == "closed"));
    let deleted = client.delete("areas/us/reno").await.unwrap().revision;
    let (event, mirror) = next(&mut told).await;
    assert_eq!(event, FolderEvent::Deleted { key: "areas/us/reno".into(), revision: deleted });
    assert_eq!(mirror.revision, deleted);
    let stored = client.list_all(KeyRange::prefix("areas/"), ReadLevel::Linearizable).await.unwrap().value;
    assert!(mirror.entries.into_iter().eq(stored.into_iter().map(|kv| (kv.key, kv.value))));
}

/// The README's lines do what they show.
pub(crate) async fn the_lines_of_the_readme_run(endpoints: Vec<String>) {
    timeout(PATIENCE, readme::run(endpoints)).await.unwrap().unwrap();
}

/// Waits until it holds.
async fn wait_for(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap();
}
