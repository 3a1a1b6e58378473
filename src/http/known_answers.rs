//! Known answers of the cryptography behind TLS, made elsewhere. Client and server of the other tests
//! are the same program on the same machine: a mistake that both make, as with the order of bytes,
//! would go unseen there.

use super::tls::provider;
use ring::{aead, digest, hmac};
use rustls::SignatureScheme;

fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    (0..hex.len()).step_by(2).map(pair).collect()
}

/// The first 1000 bytes of 0, 1, ... 250, 0, 1, ...
fn pattern() -> Vec<u8> {
    (0..1000u32).map(|n| (n % 251) as u8).collect()
}

#[test]
fn digests_of_one_and_of_many_blocks() {
    let sum = |algorithm, data: &[u8]| digest::digest(algorithm, data).as_ref().to_vec();
    assert_eq!(
        sum(&digest::SHA256, b""),
        bytes("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    );
    let many = bytes("4e4c294b331f7a2099a379bec34b9f9fc03dc46ab465d998f4d683da53487e6d");
    assert_eq!(sum(&digest::SHA256, &pattern()), many);
    // The parts end where no block does.
    let mut context = digest::Context::new(&digest::SHA256);
    pattern().chunks(37).for_each(|part| context.update(part));
    assert_eq!(context.finish().as_ref(), many);
    assert_eq!(
        sum(&digest::SHA384, b"abc"),
        bytes(
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"
        )
    );
}

#[test]
fn the_key_schedule_stands_on_hmac() {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"Jefe"), b"what do ya want for nothing?");
    let known = bytes("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_eq!(tag.as_ref(), known);
}

#[test]
fn every_cipher_seals_as_elsewhere() {
    let seal = |algorithm, key: &[u8], nonce: [u8; 12], data: &[u8], extra: &[u8]| {
        let key = aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).expect("the key's length"));
        let mut text = data.to_vec();
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, aead::Aad::from(extra), &mut text).expect("a short text");
        text
    };
    let zero = [0; 16];
    assert_eq!(
        seal(&aead::AES_128_GCM, &zero, [0; 12], &zero, b""),
        bytes("0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf")
    );
    assert_eq!(
        seal(&aead::AES_256_GCM, &[0; 32], [0; 12], &zero, b""),
        bytes("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919")
    );
    let key: Vec<u8> = (0x80..0xa0).collect();
    let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    assert_eq!(
        seal(&aead::CHACHA20_POLY1305, &key, nonce, text, &bytes("50515253c0c1c2c3c4c5c6c7")),
        bytes(
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"
        )
    );
}

#[test]
fn signatures_of_another_machine_are_verified() {
    let message = b"signed on another machine";
    let p256 = "04930efebee692d50b5b6bb89236df537e1179e44d510866e060d649ff425cbf0700fb87232d8d90d2884131bb0ba1f52e4afefd014e44bbac7d59771d80b438ad";
    let p256_signature = "3044022014d7e0ede8186bdd3aba413fea1e307b7b0fbcf5a51e2cbe911c70efeb0904870220667d51c91dc7964589d7e398b5a3784090c4f6f9277dc033b04c20ae29acba13";
    let p384 = "049b378cce343f239470d8b6d6014754810f465f48cb763d5c667a1c4aec6b9ea98b8147a51ff8d22840237379cb317615b8e09d4aa21d9c79f2168cf27edec1550c6db6bcaa6e3ed70796668750ab0120bb26375c93f168d30e8fa8a79c7e8e66";
    let p384_signature = "3066023100e131c84515776a4838c3b5c1b425d1e7c52004e28960b1b84d51f1c6d4aa0fca76e2726be66699e8815062eda73516c7023100a203f56b8f601fb8714ec7a9a8ba509eb01aa5ef54b67ddf227bcb96d8290257f4557bb99f6370fec18abeb25957b831";
    let ed25519 = "572459690088246334359865ed2cd9163c7e3266c2ac1bcfcb1ed189d0011244";
    let ed25519_signature = "12891f59d98769d75d8044a3050d40f59b9bc6e8d89d71d95c556c15f3884ffe37136a219df696594f7380b5ecf5e4cc5e422f75a3e50148d8f46660df75b50c";
    let rsa = "3082010a0282010100c49cc40c0d15b058492c450b063536bd7e0d0c02d935da8f4749b59fb172741fd1ba34d34144678cc9d879fc6b21eaa4da119105898886612d6734218ea25a64708ac7b73802bb139c8fde11d1f3349a60c63fbfc565d083b2b4353ff68a036bab7d2d2cc5a321c3441651545e8dcb3d423f0bfac27dda0345ed8818ea65dd83fbfde4237dfc069be94faa27106f87e2a0b5cb60489d06d187f1f4de2af0b76fc8c7b487e110fdc66225ef91c674f89e72c73ab99605bda41682564a48afe8ca4220cddb800259bdfac7150c8e16210976cf059dad0a589267cd7dbd03d238d517e1e2c4c176bdb7b3b7439750b22fa21b0980aa9bf1e12c7d73c281edea5b630203010001";
    let rsa_signature = "8fcced402fc7c12056d576a2ac2e00384bd24ee1c7ff4f6cae01a9e747d0eecd11d078530ccaaea497b98ee073480db811cc4bb20beaa2d70710fd67453fbddce1f3b9c3c40f5d4ae4fcbdf7c8562b767ac8c1a2f71c0409dda11880d86171d752d6a706aac4a16c35e1a53ef40a48cee191d57299ffdf2f5f8cfe2d7c5018266d40f3e923e287b304bca8acf239961b3d6caf7f1431fa04f070fa0509a7e3b057475e1d119894ddce43f5a9b03785f976f71e0d6a0f36b52b7d73e30e02635978c96682f3bcfaada35085326303644b8a6419a3e56701d8f396194617fad22d778cdb0024550dfcf662318dae5689eea0eae85127ddb4af282bec2cd43cb288";
    let known = [
        (SignatureScheme::ECDSA_NISTP256_SHA256, p256, p256_signature),
        (SignatureScheme::ECDSA_NISTP384_SHA384, p384, p384_signature),
        (SignatureScheme::ED25519, ed25519, ed25519_signature),
        (SignatureScheme::RSA_PSS_SHA256, rsa, rsa_signature),
    ];
    let provider = provider();
    for (scheme, key, signature) in known {
        let algorithms = provider.signature_verification_algorithms.mapping;
        let (_, algorithms) = algorithms.iter().find(|(known, _)| *known == scheme).expect("it is offered");
        let verify = |message: &[u8]| {
            let check = |a: &&dyn rustls::pki_types::SignatureVerificationAlgorithm| {
                a.verify_signature(&bytes(key), message, &bytes(signature)).is_ok()
            };
            algorithms.iter().any(check)
        };
        assert!(verify(message), "{scheme:?}");
        assert!(!verify(b"something else"), "{scheme:?}");
    }
}
