//! What calls say beside the request itself.

use holdfast_testserver::TestCluster;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_version_that_is_no_text_is_refused() {
    let cluster = TestCluster::single().await.unwrap();
    let mut kv = kv(&cluster.endpoint(0));
    let with_version = |version: &[u8]| {
        let mut request = Request::new(range_request("a", ""));
        request.metadata_mut().insert("client-api-version", MetadataValue::try_from(version).unwrap());
        request
    };
    assert_eq!(
        refusal(kv.range(with_version(b"3.\xff")).await),
        refused(Code::InvalidArgument, "etcdserver: invalid client api version")
    );
    kv.range(with_version("3.5-ä".as_bytes())).await.unwrap();
    cluster.stop().await;
}
