//! The option `device` flows in, a candle device flows out.

use candle_core::Device;
use candle_core::utils::{cuda_is_available, metal_is_available};

use crate::error::{Error, Result};

/// The device that `name` (`auto`, `cpu`, `cuda`, `cuda:N`, `metal`) asks for; `auto` takes a GPU where one was compiled in and is there.
///
/// A device that wasn't compiled in, isn't there or has no such name is an [`Error::Device`].
pub fn device(name: &str) -> Result<Device> {
    let fail = |message: String| Error::Device { device: name.into(), message };
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" if cuda_is_available() => Ok(Device::new_cuda(0).unwrap_or(Device::Cpu)),
        "auto" if metal_is_available() => Ok(Device::new_metal(0).unwrap_or(Device::Cpu)),
        "auto" => Ok(Device::Cpu),
        "metal" if metal_is_available() => Device::new_metal(0).map_err(|e| fail(format!("can't be opened: {e}"))),
        "metal" => Err(fail("this build has no Metal support; use 'cpu', or build with --features metal".into())),
        _ => {
            let index = match name.strip_prefix("cuda") {
                Some("") => Some(0),
                Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse().ok()),
                None => None,
            };
            let index = index.ok_or_else(|| fail("expected 'auto', 'cpu', 'cuda', 'cuda:N' or 'metal'".into()))?;
            if !cuda_is_available() {
                return Err(fail("this build has no CUDA support; use 'cpu', or build with --features cuda".into()));
            }
            Device::new_cuda(index).map_err(|e| fail(format!("can't be opened: {e}; use 'cpu' or another number")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_and_auto_always_give_a_device() {
        assert!(matches!(device("cpu").unwrap(), Device::Cpu));
        device("auto").unwrap();
    }

    #[test]
    fn a_device_that_was_not_compiled_in_is_an_error_that_says_what_to_do() {
        for (name, compiled, part) in [
            ("cuda", cuda_is_available(), "--features cuda"),
            ("cuda:1", cuda_is_available(), "--features cuda"),
            ("metal", metal_is_available(), "--features metal"),
            ("cuda:x", false, "expected 'auto'"),
            ("tpu", false, "expected 'auto'"),
        ] {
            if !compiled {
                let e = device(name).unwrap_err().to_string();
                assert!(e.contains(part) && e.contains(name), "{e}");
            }
        }
    }
}
