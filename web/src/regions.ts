// Where regions are, in both languages. Source: cloud.google.com/about/locations.
import { language } from './texts'

const CITIES: Record<string, [string, string]> = {
  'africa-south1': ['Johannesburg', 'ヨハネスブルグ'], 'asia-east1': ['Taiwan', '台湾'], 'asia-east2': ['Hong Kong', '香港'],
  'asia-northeast1': ['Tokyo', '東京'], 'asia-northeast2': ['Osaka', '大阪'], 'asia-northeast3': ['Seoul', 'ソウル'],
  'asia-south1': ['Mumbai', 'ムンバイ'], 'asia-south2': ['Delhi', 'デリー'], 'asia-southeast1': ['Singapore', 'シンガポール'],
  'asia-southeast2': ['Jakarta', 'ジャカルタ'], 'asia-southeast3': ['Bangkok', 'バンコク'], 'australia-southeast1': ['Sydney', 'シドニー'],
  'australia-southeast2': ['Melbourne', 'メルボルン'], 'europe-central2': ['Warsaw', 'ワルシャワ'], 'europe-north1': ['Finland', 'フィンランド'],
  'europe-north2': ['Stockholm', 'ストックホルム'], 'europe-southwest1': ['Madrid', 'マドリッド'], 'europe-west1': ['Belgium', 'ベルギー'],
  'europe-west10': ['Berlin', 'ベルリン'], 'europe-west12': ['Turin', 'トリノ'], 'europe-west2': ['London', 'ロンドン'],
  'europe-west3': ['Frankfurt', 'フランクフルト'], 'europe-west4': ['Netherlands', 'オランダ'], 'europe-west6': ['Zurich', 'チューリッヒ'],
  'europe-west8': ['Milan', 'ミラノ'], 'europe-west9': ['Paris', 'パリ'], 'me-central1': ['Doha', 'ドーハ'], 'me-central2': ['Dammam', 'ダンマーム'],
  'me-west1': ['Tel Aviv', 'テルアビブ'], 'northamerica-northeast1': ['Montréal', 'モントリオール'], 'northamerica-northeast2': ['Toronto', 'トロント'],
  'northamerica-south1': ['Mexico', 'メキシコ'], 'southamerica-east1': ['São Paulo', 'サンパウロ'], 'southamerica-west1': ['Santiago', 'サンティアゴ'],
  'us-central1': ['Iowa', 'アイオワ'], 'us-east1': ['South Carolina', 'サウスカロライナ'], 'us-east4': ['Northern Virginia', '北バージニア'],
  'us-east5': ['Columbus', 'コロンバス'], 'us-south1': ['Dallas', 'ダラス'], 'us-west1': ['Oregon', 'オレゴン'], 'us-west2': ['Los Angeles', 'ロサンゼルス'],
  'us-west3': ['Salt Lake City', 'ソルトレイクシティ'], 'us-west4': ['Las Vegas', 'ラスベガス'],
}

/** asia-northeast1 (Tokyo); in Japanese with the brackets of that language. */
export function regionText(region: string): string {
  const city = CITIES[region]
  if (!city) return region
  return language() === 'ja' ? `${region}（${city[1]}）` : `${region} (${city[0]})`
}
