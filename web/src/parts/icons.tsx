// Small pictures, drawn on 24 × 24 with a line of 1.8. They say nothing to a screen reader: the text beside them does.
const PATHS = {
  function: 'M7 20c3 0 3-16 7-16 1.500 0 2.500 1 2.500 2M6 11h8',
  topic: 'M5 6h14v10H9l-4 4zM9 11h6',
  bucket: 'M4 6c0-3 16-3 16 0l-2 13c-.3 2-11.700 2-12 0zM4 6c0 3 16 3 16 0',
  clock: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M12 7v5l3.500 2',
  event: 'M13 2 5 13h6l-1 9 8-12h-6z',
  person: 'M12 4a4 4 0 1 0 0 8 4 4 0 0 0 0-8M4.500 20c.5-5 14.500-5 15 0',
  gear: 'M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6M12 2.500v3M12 18.500v3M2.500 12h3M18.500 12h3M5.300 5.300l2.100 2.100M16.600 16.600l2.100 2.100M18.700 5.300l-2.100 2.100M7.400 16.600l-2.100 2.100',
  pulse: 'M3 12h4l3-7 4 14 3-7h4',
  plus: 'M12 5v14M5 12h14',
  copy: 'M9 9h11v11H9zM15 9V4H4v11h5',
  open: 'M14 4h6v6M20 4 11 13M18 14v6H4V6h6',
  check: 'm5 12.500 4.500 4.500L19 7.500',
  cross: 'M6 6l12 12M18 6 6 18',
  bin: 'M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5',
  pen: 'M4 20l1-4L16 5l3 3L8 19zM14 7l3 3',
  info: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M12 11v5M12 7.500v.5',
  warning: 'M12 4 3 20h18zM12 10v5M12 17.500v.3',
  menu: 'M4 7h16M4 12h16M4 17h16',
  sun: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v2.500M12 19.500V22M2 12h2.500M19.500 12H22M5 5l1.700 1.700M17.300 17.300 19 19M19 5l-1.700 1.700M6.700 17.300 5 19',
  moon: 'M19.500 14A8 8 0 0 1 10 4.500 8 8 0 1 0 19.500 14z',
  play: 'M7 4.500v15l12-7.500z',
  pause: 'M8 5v14M16 5v14',
  again: 'M19 12a7 7 0 1 1-2-5l2 2M19 4v5h-5',
  upload: 'M12 16V5M7 9.500 12 4.500l5 5M5 20h14',
  download: 'M12 4v11M7 11l5 5 5-5M5 20h14',
  flask: 'M9.500 3.500h5M10.500 3.500V10L5 19c-.6 1 0 2 1 2h12c1 0 1.600-1 1-2l-5.500-9V3.500M8 15h8',
  out: 'M10 4H5v16h5M15 8l4 4-4 4M19 12H9',
  file: 'M6 3h8l4 4v14H6zM14 3v4h4',
} as const

export type IconName = keyof typeof PATHS

export function Icon({ name }: { name: IconName }) {
  return (
    <svg viewBox="0 0 24 24" fill="none" stroke="currentColor" strokeWidth="1.8" strokeLinecap="round" strokeLinejoin="round" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  )
}
