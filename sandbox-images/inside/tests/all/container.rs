//! `inside` as PID 1 of a sealed container. Skipped, loudly, where no engine answers or the image is missing.
