//! What may happen once: an assertion is used once, and a request with a key has one answer.

use tollgate_issuer::store::{KeptAnswer, KnownKey};

use super::on_every_backend;
use crate::stores::backend::{Backend, at_once};

on_every_backend!(of_twenty_uses_of_an_assertion_one_counts, the_first_answer_to_a_key_stays);

async fn of_twenty_uses_of_an_assertion_one_counts(backend: &Backend) {
    let stores = backend.replicas::<3>().await;
    let until = backend.now().plus(60);
    let used = at_once(20, |number| {
        let store = stores[number % 3].clone();
        async move { store.use_assertion([4; 32], until).await.unwrap() }
    })
    .await;
    assert_eq!(used.iter().filter(|first| **first).count(), 1);
    stores[0].prune_once(backend.now(), until).await.unwrap();
    assert!(!stores[1].use_assertion([4; 32], until).await.unwrap(), "not over yet");
    stores[0].prune_once(backend.now(), until.plus(1)).await.unwrap();
    assert!(stores[1].use_assertion([4; 32], until).await.unwrap());
}

async fn the_first_answer_to_a_key_stays(backend: &Backend) {
    let stores = backend.replicas::<2>().await;
    let (operator, request) = ("operator", [1; 32]);
    let now = backend.now();
    let reserved = at_once(8, |number| {
        let store = stores[number % 2].clone();
        async move { store.reserve_key(operator, "key", request, now).await.unwrap() }
    })
    .await;
    assert_eq!(reserved.iter().filter(|known| **known == KnownKey::Reserved).count(), 1);
    assert_eq!(reserved.iter().filter(|known| **known == KnownKey::InProgress).count(), 7);
    let answer = |byte| KeptAnswer { status: 201, headers: "{}".to_owned(), body: vec![byte] };
    stores[0].keep_answer(operator, "key", &answer(1)).await.unwrap();
    let known =
        async |operator: &str, request| stores[1].reserve_key(operator, "key", request, now).await.unwrap();
    assert_eq!(known(operator, request).await, KnownKey::Answered(answer(1)));
    assert_eq!(known(operator, [2; 32]).await, KnownKey::Other);
    assert_eq!(known("another", request).await, KnownKey::Reserved);
    stores[0].release_key("another", "key").await.unwrap();
    assert_eq!(known("another", request).await, KnownKey::Reserved);
    stores[0].prune_once(now.plus(1), now).await.unwrap();
    assert_eq!(known(operator, request).await, KnownKey::Reserved);
}
