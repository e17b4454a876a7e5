// Measures the way from this page's users to clusters, and tells the beacon that this script comes from:
//   <script async src="https://beacon.example/beacon.js" data-cell="frankfurt" data-sample="0.01"></script>
// The cell is `data-cell`, or what the page's own answer says (Server-Timing: isochrone-cell;desc="frankfurt"), or the
// one nearest to `data-lat` and `data-lon`, which are rounded to a tenth of a degree. One page view in `data-sample` measures.
(() => {
  const script = document.currentScript;
  if (!script || Math.random() >= Number(script.dataset.sample ?? 0.01)) return;
  const beacon = `${new URL(script.src).origin}/v1/beacon`;

  const cellOfPage = () => {
    const told = performance.getEntriesByType('navigation')[0]?.serverTiming ?? [];
    return script.dataset.cell || told.find((one) => one.name === 'isochrone-cell')?.description || '';
  };

  const rounded = (degrees) => Math.round(Number(degrees) * 10) / 10;

  const fetched = async (url) => {
    const begun = performance.now();
    await fetch(url, { mode: 'no-cors', cache: 'no-store', credentials: 'omit', referrerPolicy: 'no-referrer' });
    return performance.now() - begun;
  };

  // The first request opens the connection; one on an open connection takes one round trip.
  const roundTrip = async (url) => {
    await fetched(url);
    return Math.min(await fetched(url), await fetched(url));
  };

  const measure = async () => {
    const cell = cellOfPage();
    const { lat, lon } = script.dataset;
    if (!cell && (lat === undefined || lon === undefined)) return;
    const query = cell ? { cell } : { lat: rounded(lat), lon: rounded(lon) };
    const answer = await fetch(`${beacon}?${new URLSearchParams(query)}`, { credentials: 'omit' });
    if (!answer.ok) return;
    const told = await answer.json();
    const rtts = [];
    for (const one of told.measure) {
      try {
        rtts.push({ cluster: one.cluster, rtt_ms: Math.round((await roundTrip(one.url)) * 1000) / 1000 });
      } catch {
        // A cluster that cannot be reached is not measured.
      }
    }
    if (told.cell && rtts.length > 0) {
      const body = JSON.stringify({ cell: told.cell, rtts });
      await fetch(beacon, { method: 'POST', body, credentials: 'omit', keepalive: true });
    }
  };

  const start = () => setTimeout(() => measure().catch(() => {}), 1000);
  if (document.readyState === 'complete') start();
  else addEventListener('load', start);
})();
