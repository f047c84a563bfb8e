// What the checks of one client share: each prints a line, and the exit code says whether any failed.
// Never asks anything but the address that it is given.

export function checks(client) {
  let failed = 0;
  let count = 0;
  const check = async (what, run) => {
    count += 1;
    try {
      await run();
      console.log(`ok ${client}: ${what}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED ${client}: ${what}`);
      console.log(error?.stack ?? error);
    }
  };
  // A program that checks nothing must not look well.
  check.end = () => process.exit(failed > 0 || count === 0 ? 1 : 0);
  return check;
}

export function same(have, want) {
  const [one, other] = [JSON.stringify(have), JSON.stringify(want)];
  if (one !== other) throw new Error(`have ${one}, want ${other}`);
}

export async function raises(status, run) {
  try {
    await run();
  } catch (error) {
    same(error.status ?? error.cause?.response?.status, status);
    return error;
  }
  throw new Error("nothing was refused");
}
