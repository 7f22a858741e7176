//! The examples, run on holdfast with one member and with three, and on a real etcd where there is one: the same code that
//! their programs run.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "../examples/api_server.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a program of its own")]
mod api_server;
#[path = "../examples/collector.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a program of its own")]
mod collector;
#[path = "../examples/config_reload.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a program of its own")]
mod config_reload;
#[path = "support/etcd.rs"]
mod etcd;
#[path = "../examples/folder_watcher.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a program of its own")]
mod folder_watcher;
#[path = "examples/http.rs"]
mod http;
#[path = "../examples/leader_worker.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a program of its own")]
mod leader_worker;
#[path = "../examples/readme.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a program of its own")]
mod readme;
#[path = "examples/scenes.rs"]
mod scenes;
#[path = "../examples/service_registry.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a program of its own")]
mod service_registry;

/// A test of each scene on each kind of cluster, which nobody else uses.
macro_rules! on_each {
    ($($scene:ident)*) => {
        mod one_member {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scene() {
                let server = holdfast_testserver::TestServer::start().await.unwrap();
                super::scenes::$scene(server.endpoints()).await;
                server.stop().await;
            })*
        }

        mod three_members {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scene() {
                let server = holdfast_testserver::TestServer::three().await.unwrap();
                super::scenes::$scene(server.endpoints()).await;
                server.stop().await;
            })*
        }

        mod real_etcd {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scene() {
                let what = concat!("the example of ", stringify!($scene));
                let Some(etcd) = super::etcd::Etcd::start(what).await else { return };
                super::scenes::$scene(vec![etcd.endpoint()]).await;
            })*
        }
    };
}

on_each! {
    settings_are_reloaded_and_the_last_good_ones_are_kept
    one_worker_works_and_the_next_one_goes_on_where_it_was
    an_instance_is_listed_as_long_as_it_lives
    widgets_are_served_over_http
    three_clusters_are_collected_in_one_and_a_second_run_writes_nothing
    wh26_a_folder_is_mirrored
    the_lines_of_the_readme_run
}

/// The README shows what is run here, and at most ten lines of it.
#[test]
fn the_readme_shows_the_lines_that_are_run() {
    let example = include_str!("../examples/readme.rs");
    let run = between(example, "    // README.md\n", "    // End.\n");
    let run: Vec<&str> = run.lines().map(str::trim_start).collect();
    let readme = include_str!("../../../README.md");
    let section = between(readme, "## From Rust\n", "\n## ");
    let shown: Vec<&str> = between(section, "```rust\n", "```").lines().collect();
    assert_eq!(shown, run);
    assert!(shown.len() <= 10, "{} lines", shown.len());
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, behind) = text.split_once(begin).unwrap();
    behind.split_once(end).unwrap().0
}
