// What the build was given, for the function to tell.
require("fs").writeFileSync("stamp", JSON.stringify([process.env.STAMP ?? null, process.env.OTHER ?? null]));
